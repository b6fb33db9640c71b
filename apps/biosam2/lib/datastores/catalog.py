"""Lists the images of a DICOMweb store and the segmentations drawn on them.

A listing is one query, kept for a few seconds. Which series a segmentation belongs to stands only in its
own header, which is fetched once and kept in a file of the cache.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from lib.errors import BusyError
from lib.files import write_atomically
from lib.images.dicom_header import utc_offset

logger = logging.getLogger(__name__)

# Seconds for which a listing is kept: shorter than the time from one image to the next in a viewer.
FRESH_S = 3.0
# A slow store is queried less often: listings take at most a tenth of its time.
_SHARE = 10
_PAGE = 1000
# Longest UID that is looked up: some devices write more than the 64 characters that DICOM allows.
_MOST_UID = 128
# Modalities without an image that can be segmented here. Whole slides (SM) are pyramids of tiles.
NO_PICTURES = frozenset(
    {"SEG", "SR", "PR", "KO", "DOC", "PLAN", "REG", "FID", "RWV", "ANN", "ASMT", "SMR", "STAIN", "M3D", "SM"}
    | {"RTSTRUCT", "RTPLAN", "RTRECORD", "RTDOSE", "RTINTENT", "RTSEGANN", "RTRAD", "TEXTUREMAP"}
    | {"AU", "AUDIO", "ECG", "HD", "EPS", "EEG", "EMG", "EOG", "RESP"}
    | {"OPM", "OPV", "LEN", "KER", "SRF", "VA", "OAM"}
)
# Modalities whose series hold several clips and stills: each file is an image of its own where one is a clip.
_CLIPS = frozenset({"US", "IVUS", "IVOCT", "ES", "XA", "RF", "XC", "GM", "OP"})
_FIELDS = ["StudyDate", "StudyTime", "Modality", "PatientID", "RetrieveURL", "StudyInstanceUID"]
_ASKED = [*_FIELDS, "SeriesDescription", "NumberOfSeriesRelatedInstances"]
# The tags that are read. Stores send others as well, and pydicom raises for numbers that are malformed.
_FILE_FIELDS = ["SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber", "NumberOfFrames"]
_TAGS = frozenset(f"{tag_for_keyword(name):08X}" for name in (*_FILE_FIELDS, *_ASKED))
# Errors that a malformed header raises.
_BAD_HEADER = (ValueError, TypeError, KeyError, AttributeError)
_UNKNOWN = "UNK"

# Elements with the time at which a segmentation was made, the most specific first.
_WHEN = (
    ("ContentDate", "ContentTime"),
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("SeriesDate", "SeriesTime"),
)


@dataclass(frozen=True)
class ImageSeries:
    """A series of the store that can be segmented, or one file of it, such as one of several clips.

    Attributes:
        uid: Image id: the Series Instance UID, or the SOP Instance UID of the one file.
        series_uid: Series Instance UID.
        study_uid: Study Instance UID.
        instances: Number of instances in the store; None if the store does not say.
        info: Description for viewers, under MONAI Label's names.
    """

    uid: str
    series_uid: str
    study_uid: str
    instances: int | None
    info: Mapping[str, str]

    def file(self, uid: str) -> ImageSeries:
        """One file of the series as an image."""
        return replace(self, uid=uid, instances=1, info={**self.info, "SOPInstanceUID": uid})


@dataclass(frozen=True)
class StoredSegmentation:
    """A DICOM segmentation (one file) in the store, as its header describes it.

    Attributes:
        uid: SOP Instance UID.
        series_uid: Series Instance UID of the segmentation.
        study_uid: Study Instance UID.
        image_uid: Series Instance UID of the image that it was drawn on.
        made: Time in its header, in seconds since 1970; UTC if it names no time zone, as OHIF writes it.
        label_info: Names of the segments, ``[{"name": ..., "idx": ...}]``.
        seen: Time at which this server first saw it in the store, in seconds since 1970.
        file_uid: SOP Instance UID of the image's file, if it was drawn on one alone.
    """

    uid: str
    series_uid: str
    study_uid: str
    image_uid: str
    made: float
    label_info: list[dict[str, Any]]
    seen: float = 0.0
    file_uid: str = ""

    @property
    def age(self) -> tuple[float, float]:
        """Sort key: clocks of the workstations differ, so the time of arrival counts first."""
        return self.seen, self.made

    def as_json(self) -> dict[str, Any]:
        """The fields by name, for a JSON file."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Contents:
    """Images and segmentations of a store at one moment.

    Attributes:
        images: Images by id, in the store's order.
        labels: Segmentations by Series Instance UID, and those of one file also by its SOP Instance UID; the
            latest arrival first.
    """

    images: Mapping[str, ImageSeries]
    labels: Mapping[str, tuple[StoredSegmentation, ...]]


class StoreContents:
    """Queries a store for its contents. Safe to use from several threads.

    Args:
        client: DICOMweb client of the store.
        search_filter: QIDO filter of the images; empty for every series with images.
        known: File that keeps what the headers of segmentations and clips say.
        clock: Clock in seconds.
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
        # Set when something was stored, also during a query: the last listing may lack it.
        self._outdated = threading.Event()
        # Guards everything below. Held during a query, so that simultaneous requests share one.
        self._lock = threading.Lock()
        self._contents: Contents | None = None
        self._until = 0.0
        self._failure = ""
        self._references: dict[str, list[dict[str, Any]]] | None = None
        self._passed_over: set[str] = set()

    @property
    def last(self) -> Contents:
        """The last listing; empty if the store never answered."""
        return self._contents or Contents({}, {})

    @property
    def fresh(self) -> Contents | None:
        """The last listing while it counts; None where the next request asks the store, or has failed."""
        is_old = self._outdated.is_set() or self._clock() >= self._until
        return None if is_old or self._failure else self._contents

    def now(self) -> Contents:
        """The store's contents, a few seconds old at most.

        Raises:
            BusyError: The store does not answer.
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
            # The next requests fail at once instead of waiting for the same timeout.
            self._failure, self._until = str(error), self._clock() + FRESH_S
            return
        taken = self._clock() - start
        self._failure, self._until = "", self._clock() + max(FRESH_S, _SHARE * taken)

    def forget(self) -> None:
        """Makes the next request query the store, after something was stored."""
        self._outdated.set()

    def find(self, uid: str) -> ImageSeries | None:
        """A series or file that can be segmented, even one that the filter excludes; None if there is none.

        Raises:
            BusyError: The store does not answer.
        """
        found = self.last.images.get(uid) or self.now().images.get(uid)
        if found is not None or not _is_uid(uid):
            return found
        with store_errors(self._client):
            if (found := self._find_series(uid)) is not None:
                return found
            for item in self._client.search_for_instances(search_filters={"SOPInstanceUID": uid}):
                whole = self._find_series(_text(_known_tags(item), "SeriesInstanceUID"))
                if whole is not None and _text(_known_tags(item), "SOPInstanceUID") == uid:
                    return whole.file(uid)
        return None

    def _find_series(self, uid: str) -> ImageSeries | None:
        for item in self._search({"SeriesInstanceUID": uid}):
            if _text(item, "SeriesInstanceUID") == uid and _has_pictures(item):
                return _image(item)
        return None

    def _ask(self) -> Contents:
        known = self._read_references()
        before = len(known)
        try:
            listed = self._search(self._filter)
            images = [image for item in listed if _has_pictures(item) for image in self._images(item)]
            found = {image.uid: image for image in images if image.uid}
            if self._filter:
                listed = self._search({"Modality": "SEG"})
            drawn = self._segmentations([item for item in listed if _text(item, "Modality") == "SEG"])
        finally:
            # Written once for all new ones, also if the store fails in between.
            if len(known) > before:
                write_atomically(self._known, json.dumps(known, indent=1).encode())
        labels: dict[str, list[StoredSegmentation]] = defaultdict(list)
        for one in sorted(drawn, key=lambda one: one.age, reverse=True):
            for uid in filter(None, (one.image_uid, one.file_uid)):
                labels[uid].append(one)
        return Contents(found, {uid: tuple(all_of_it) for uid, all_of_it in labels.items()})

    def _images(self, series: Dataset) -> list[ImageSeries]:
        """A series, or each of its files if there are clips among them."""
        whole = _image(series)
        if _text(series, "Modality") not in _CLIPS or (whole.instances or 1) < 2:
            return [whole]
        known, key = self._read_references(), f"{whole.uid} {whole.instances}"
        if key not in known:
            try:
                items = self._client.search_for_instances(
                    whole.study_uid, whole.uid, fields=_FILE_FIELDS, get_remaining=True
                )
                known[key] = _clips([_known_tags(item) for item in items])
            except (requests.HTTPError, *_BAD_HEADER) as error:
                logger.warning("The files of series %s cannot be listed: %s", whole.uid, error)
        return [whole.file(clip["uid"]) for clip in known.get(key, ())] or [whole]

    def _search(self, filters: Mapping[str, Any]) -> list[Dataset]:
        """All matching series, page by page; a store without paging sends all of them at once."""
        found: dict[str, Dataset] = {}
        while True:
            page = self._client.search_for_series(
                search_filters=dict(filters), fields=_ASKED, limit=_PAGE, offset=len(found)
            )
            new = {_text(item, "SeriesInstanceUID"): item for item in map(_known_tags, page)}
            if not new.keys() - found.keys():
                return list(found.values())
            found.update(new)
            if len(page) < _PAGE:
                return list(found.values())

    def _segmentations(self, listed: Sequence[Dataset]) -> list[StoredSegmentation]:
        """Segmentations of some series, from the file or, if they are new, from the store."""
        known, seen, found = self._read_references(), time.time(), []
        for series in listed:
            study, uid = _text(series, "StudyInstanceUID"), _text(series, "SeriesInstanceUID")
            key = f"{uid} {_text(series, 'NumberOfSeriesRelatedInstances')}"
            if key not in known and (drawn := self._ask_for_references(study, uid, seen)) is not None:
                known[key] = drawn
            found += [StoredSegmentation(**item) for item in known.get(key, ())]
        return found

    def _ask_for_references(self, study: str, uid: str, seen: float) -> list[dict[str, Any]] | None:
        """Contents of a new series of segmentations; None if it cannot be read now."""
        try:
            metadata = self._client.retrieve_series_metadata(study, uid)
            read = [read_segmentation(_header(item), study, uid, seen) for item in metadata]
        except (requests.HTTPError, *_BAD_HEADER) as error:
            # Tried again with each listing, and logged as a warning once.
            level = logging.DEBUG if uid in self._passed_over else logging.WARNING
            logger.log(level, "The segmentation %s cannot be read and is skipped: %s", uid, error)
            self._passed_over.add(uid)
            return None
        drawn = [item.as_json() for item in read if item is not None]
        if not drawn:
            logger.warning("The segmentation %s names no series that it belongs to: it is ignored", uid)
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
    """Raises errors of the connection to a store as ``BusyError``.

    Raises:
        BusyError: The store does not answer, or not as DICOMweb specifies.
    """
    try:
        yield
    except requests.RequestException as error:
        raise BusyError(
            f"the DICOM store at {client.base_url} does not answer as it should: {_reason(error)}; see that "
            "it runs and can be reached from this server"
        ) from error


def _reason(error: requests.RequestException) -> str:
    """The error in a few words, without the client library's details."""
    if isinstance(error, requests.Timeout):
        return "it takes too long"
    if isinstance(error, requests.ConnectionError):
        return "there is no connection"
    return str(error)


def read_segmentation(
    header: Dataset, study_uid: str, series_uid: str, seen: float = 0.0
) -> StoredSegmentation | None:
    """Reads the header of a segmentation; None if it does not say which series it was drawn on."""
    series = header.get("ReferencedSeriesSequence") or []
    image_uid = str(series[0].get("SeriesInstanceUID") or "") if series else ""
    if not image_uid:
        return None
    files = series[0].get("ReferencedInstanceSequence") or []
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
        file_uid=str(files[0].get("ReferencedSOPInstanceUID") or "") if len(files) == 1 else "",
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
    return bool(text) and len(text) <= _MOST_UID and all(part.isdigit() for part in text.split("."))


def _header(item: Mapping[str, Any]) -> Dataset:
    """The header without bulk data such as pixels."""
    return Dataset.from_json({tag: value for tag, value in item.items() if "BulkDataURI" not in value})


def _known_tags(item: Mapping[str, Any]) -> Dataset:
    return Dataset.from_json({tag: item[tag] for tag in _TAGS & item.keys()})


def _clips(files: Sequence[Dataset]) -> list[dict[str, Any]]:
    """UIDs of all files of a series, in their order; none if none of them has several frames."""
    if all(int(item.get("NumberOfFrames") or 1) < 2 for item in files):
        return []
    ordered = sorted(files, key=lambda item: int(item.get("InstanceNumber") or 0))
    return [{"uid": _text(item, "SOPInstanceUID")} for item in ordered]


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
        uid,
        _text(item, "StudyInstanceUID"),
        int(count) if count.isdigit() else None,
        {"SeriesInstanceUID": uid, **info, "SeriesDescription": _text(item, "SeriesDescription")},
    )
