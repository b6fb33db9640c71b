"""What a DICOMweb store holds now: images, and the segmentations that people drew on them.

A listing is one question to the store, and kept for a few seconds. A segmentation names the series that it
was drawn on only in its own header: that is asked for once, and written down beside the images.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from lib.errors import BusyError
from lib.files import write_atomically
from lib.images.dicom_tags import utc_offset

logger = logging.getLogger(__name__)

# Seconds for which a listing counts as the store's contents: less than a person needs from one image to the
# next.
FRESH_S = 3.0
# A store that takes long to answer is asked less often: it may work for us a tenth of the time.
_SHARE = 10
_PAGE = 1000
# What holds no picture of a patient that could be segmented. Slides are pyramids of tiles: not by this way.
NO_PICTURES = frozenset(
    {"SEG", "SR", "PR", "KO", "DOC", "PLAN", "REG", "FID", "RWV", "ANN", "ASMT", "SMR", "STAIN", "M3D", "SM"}
    | {"RTSTRUCT", "RTPLAN", "RTRECORD", "RTDOSE", "RTINTENT", "RTSEGANN", "RTRAD", "TEXTUREMAP"}
    | {"AU", "AUDIO", "ECG", "HD", "EPS", "EEG", "EMG", "EOG", "RESP"}
    | {"OPM", "OPV", "LEN", "KER", "SRF", "VA", "OAM"}
)
_FIELDS = ["StudyDate", "StudyTime", "Modality", "PatientID", "RetrieveURL", "StudyInstanceUID"]
_ASKED = [*_FIELDS, "SeriesDescription", "NumberOfSeriesRelatedInstances"]
# As JSON has them. A store sends others as well, and pydicom takes offence at any that is no number.
_TAGS = frozenset(f"{tag_for_keyword(name):08X}" for name in ("SeriesInstanceUID", *_ASKED))
# What comes of a header that is not as DICOM has it.
_NO_HEADER = (ValueError, TypeError, KeyError, AttributeError)
_UNKNOWN = "UNK"


# When something was made, the most telling first.
_WHEN = (
    ("ContentDate", "ContentTime"),
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("SeriesDate", "SeriesTime"),
)


@dataclass(frozen=True)
class ImageSeries:
    """A series of the store that can be segmented.

    Attributes:
        uid: its Series Instance UID, which is the image's id.
        study_uid: of its study.
        instances: how many the store has of it; None where it does not say.
        info: for people and viewers, as MONAI Label names it.
    """

    uid: str
    study_uid: str
    instances: int | None
    info: Mapping[str, str]


@dataclass(frozen=True)
class StoredSegmentation:
    """One file of segments.

    Attributes:
        uid: its SOP Instance UID.
        series_uid: of its own series.
        study_uid: of its study.
        image_uid: of the series that it was drawn on.
        made: seconds since 1970. A file that names no time zone is taken for one in UTC, as OHIF writes it.
        label_info: names of the segments, ``[{"name": ..., "idx": ...}]``.
        seen: when this server first saw it in the store, seconds since 1970.
    """

    uid: str
    series_uid: str
    study_uid: str
    image_uid: str
    made: float
    label_info: list[dict[str, Any]]
    seen: float = 0.0

    @property
    def age(self) -> tuple[float, float]:
        """What orders segmentations: the clocks of those who make them differ, so what came last counts."""
        return self.seen, self.made

    def as_json(self) -> dict[str, Any]:
        """The arguments that it is made of."""
        return asdict(self)


@dataclass(frozen=True)
class Contents:
    """A store at one moment.

    Attributes:
        images: by id, in the store's order.
        labels: segmentations of an image, by its id; first what came into the store last.
    """

    images: Mapping[str, ImageSeries]
    labels: Mapping[str, tuple[StoredSegmentation, ...]]


class StoreContents:
    """Asks a store for its contents. Safe to use from several threads.

    Args:
        client: of the store.
        search_filter: of images, as QIDO has it; empty for all that hold pictures.
        known: file in which the references of segmentations are kept.
        clock: seconds.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        search_filter: Mapping[str, Any],
        known: Path,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._client = client
        self._filter = search_filter
        self._known = known
        self._clock = clock
        # Set while the last answer may lack what was stored since: also what was stored during the asking.
        self._outdated = threading.Event()
        # Guards all below; held while the store is asked, so that many who want to know ask once.
        self._lock = threading.Lock()
        self._contents: Contents | None = None
        self._until = 0.0
        self._failure = ""
        self._references: dict[str, list[dict[str, Any]]] | None = None
        self._passed_over: set[str] = set()

    @property
    def last(self) -> Contents:
        """What the store held when it was last asked; nothing where it never answered."""
        return self._contents or Contents({}, {})

    def now(self) -> Contents:
        """What the store holds, a few seconds old at most.

        Raises:
            BusyError: the store does not answer.
        """
        with self._lock:
            if self._outdated.is_set() or self._clock() >= self._until:
                self._ask_again()
            if self._failure or self._contents is None:
                raise BusyError(self._failure)
            return self._contents

    def _ask_again(self) -> None:
        self._outdated.clear()
        start = self._clock()
        try:
            with store_errors(self._client):
                self._contents = self._ask()
        except BusyError as error:
            # Whoever asks next need not wait as long to hear the same.
            self._failure, self._until = str(error), self._clock() + FRESH_S
            return
        taken = self._clock() - start
        self._failure, self._until = "", self._clock() + max(FRESH_S, _SHARE * taken)

    def forget(self) -> None:
        """Makes the next question go to the store: something was stored."""
        self._outdated.set()

    def find(self, uid: str) -> ImageSeries | None:
        """A series that can be segmented, also one that the filter leaves out; None where there is none.

        Raises:
            BusyError: the store does not answer.
        """
        found = self.last.images.get(uid) or self.now().images.get(uid)
        if found is not None or not _is_uid(uid):
            return found
        with store_errors(self._client):
            for item in self._search({"SeriesInstanceUID": uid}):
                if _text(item, "SeriesInstanceUID") == uid and _has_pictures(item):
                    return _image(item)
        return None

    def _ask(self) -> Contents:
        listed = self._search(self._filter)
        images = [_image(item) for item in listed if _has_pictures(item)]
        found = {image.uid: image for image in images if image.uid}
        if self._filter:
            listed = self._search({"Modality": "SEG"})
        labels: dict[str, list[StoredSegmentation]] = defaultdict(list)
        for segmentation in self._segmentations(
            [item for item in listed if _text(item, "Modality") == "SEG"]
        ):
            labels[segmentation.image_uid].append(segmentation)
        newest = {
            uid: tuple(sorted(drawn, key=lambda one: one.age, reverse=True)) for uid, drawn in labels.items()
        }
        return Contents(found, newest)

    def _search(self, filters: Mapping[str, Any]) -> list[Dataset]:
        """All series that fit, page by page; a store that knows no pages gives all of them in the first."""
        found: dict[str, Dataset] = {}
        while True:
            page = self._client.search_for_series(
                search_filters=dict(filters), fields=_ASKED, limit=_PAGE, offset=len(found)
            )
            datasets = [Dataset.from_json({tag: item[tag] for tag in _TAGS & item.keys()}) for item in page]
            new = {_text(item, "SeriesInstanceUID"): item for item in datasets}
            if not new.keys() - found.keys():
                return list(found.values())
            found.update(new)
            if len(page) < _PAGE:
                return list(found.values())

    def _segmentations(self, listed: Sequence[Dataset]) -> list[StoredSegmentation]:
        """Those of some series, from the file or, where they are new, from the store."""
        known, seen = self._read_references(), time.time()
        before, found = len(known), []
        try:
            for series in listed:
                study, uid = _text(series, "StudyInstanceUID"), _text(series, "SeriesInstanceUID")
                key = f"{uid} {_text(series, 'NumberOfSeriesRelatedInstances')}"
                if key not in known and (drawn := self._ask_for_references(study, uid, seen)) is not None:
                    known[key] = drawn
                found += [StoredSegmentation(**item) for item in known.get(key, ())]
        finally:
            # Once for all that are new, also where the store stops answering among them.
            if len(known) > before:
                write_atomically(self._known, json.dumps(known, indent=1).encode())
        return found

    def _ask_for_references(self, study: str, uid: str, seen: float) -> list[dict[str, Any]] | None:
        """What a new series of segmentations holds; None where it cannot be had now, which hides no other."""
        try:
            metadata = self._client.retrieve_series_metadata(study, uid)
            read = [read_segmentation(_header(item), study, uid, seen) for item in metadata]
        except (requests.HTTPError, *_NO_HEADER) as error:
            # It is asked for with each listing, and named once.
            level = logging.DEBUG if uid in self._passed_over else logging.WARNING
            logger.log(level, "The segmentation %s cannot be had and is passed over: %s", uid, error)
            self._passed_over.add(uid)
            return None
        drawn = [item.as_json() for item in read if item is not None]
        if not drawn:
            logger.warning("The segmentation %s names no series that it was drawn on: it is ignored", uid)
        return drawn

    def _read_references(self) -> dict[str, list[dict[str, Any]]]:
        if self._references is None:
            try:
                self._references = dict(json.loads(self._known.read_text(encoding="utf-8")))
            except (OSError, ValueError):
                self._references = {}
        return self._references


@contextmanager
def store_errors(client: DICOMwebClient) -> Iterator[None]:
    """Says in words that the store does not answer, or not as it should.

    Raises:
        BusyError: with the store's address.
    """
    try:
        yield
    except requests.RequestException as error:
        raise BusyError(
            f"the DICOM store at {client.base_url} does not answer as it should: {_reason(error)}; see that "
            "it runs and can be reached from this server"
        ) from error


def _reason(error: requests.RequestException) -> str:
    """Without the client's own words, which are many."""
    if isinstance(error, requests.Timeout):
        return "it takes too long"
    if isinstance(error, requests.ConnectionError):
        return "there is no connection"
    return str(error)


def read_segmentation(
    header: Dataset, study_uid: str, series_uid: str, seen: float = 0.0
) -> StoredSegmentation | None:
    """Reads the header of a segmentation; None where it names no series that it was drawn on."""
    series = header.get("ReferencedSeriesSequence") or []
    image_uid = str(series[0].get("SeriesInstanceUID") or "") if series else ""
    if not image_uid:
        return None
    segments = header.get("SegmentSequence") or []
    return StoredSegmentation(
        uid=str(header.get("SOPInstanceUID") or ""),
        series_uid=series_uid,
        study_uid=study_uid,
        image_uid=image_uid,
        made=_made(header),
        label_info=[
            {"name": str(item.get("SegmentLabel") or "").strip(), "idx": int(item.SegmentNumber)}
            for item in segments
            if item.get("SegmentNumber")
        ],
        seen=seen,
    )


def _made(header: Dataset) -> float:
    for date, moment_of_day in _WHEN:
        digits = str(header.get(date) or "").replace("-", "")
        if len(digits) != 8 or not digits.isdigit():
            continue
        clock, _, fraction = str(header.get(moment_of_day) or "").replace(":", "").partition(".")
        text = f"{digits}{clock[:6]:0<6}"
        try:
            moment = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
        except ValueError:
            continue
        parts = float(f"0.{fraction}") if fraction.isdigit() else 0.0
        away = utc_offset(header.get("TimezoneOffsetFromUTC"))
        return moment.timestamp() + parts - away.total_seconds()
    return 0.0


def _is_uid(text: str) -> bool:
    return bool(text) and len(text) <= 64 and all(part.isdigit() for part in text.split("."))


def _header(item: Mapping[str, Any]) -> Dataset:
    """Without what lies elsewhere: the pixels."""
    return Dataset.from_json({tag: value for tag, value in item.items() if "BulkDataURI" not in value})


def _text(item: Dataset, name: str) -> str:
    value = item.get(name)
    return "" if value is None else str(value)


def _has_pictures(item: Dataset) -> bool:
    return _text(item, "Modality") not in NO_PICTURES


def _image(item: Dataset) -> ImageSeries:
    uid, count = _text(item, "SeriesInstanceUID"), _text(item, "NumberOfSeriesRelatedInstances")
    info = {name: _text(item, name) or _UNKNOWN for name in _FIELDS}
    return ImageSeries(
        uid,
        _text(item, "StudyInstanceUID"),
        int(count) if count.isdigit() else None,
        {"SeriesInstanceUID": uid, **info, "SeriesDescription": _text(item, "SeriesDescription")},
    )
