"""A segmentation in a DICOMweb store, as its header describes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from pydicom import Dataset

from lib.images.dicom_tags import utc_offset

# When something was made, the most telling first.
_WHEN = (
    ("ContentDate", "ContentTime"),
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("SeriesDate", "SeriesTime"),
)


@dataclass(frozen=True)
class Segmentation:
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


def read_segmentation(
    header: Dataset, study_uid: str, series_uid: str, seen: float = 0.0
) -> Segmentation | None:
    """Reads the header of a segmentation; None where it names no series that it was drawn on."""
    series = header.get("ReferencedSeriesSequence") or []
    image_uid = str(series[0].get("SeriesInstanceUID") or "") if series else ""
    if not image_uid:
        return None
    segments = header.get("SegmentSequence") or []
    return Segmentation(
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
    for date, time in _WHEN:
        digits = str(header.get(date) or "").replace("-", "")
        if len(digits) != 8 or not digits.isdigit():
            continue
        clock, _, fraction = str(header.get(time) or "").replace(":", "").partition(".")
        text = f"{digits}{clock[:6]:0<6}"
        try:
            moment = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
        except ValueError:
            continue
        parts = float(f"0.{fraction}") if fraction.isdigit() else 0.0
        away = utc_offset(header.get("TimezoneOffsetFromUTC"))
        return moment.timestamp() + parts - away.total_seconds()
    return 0.0
