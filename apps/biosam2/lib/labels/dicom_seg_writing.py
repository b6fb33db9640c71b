"""Label maps to DICOM segmentations, which any viewer of the series shows in the right place."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from lib.errors import LabelError
from lib.images.dicom_tags import utc_offset
from lib.images.medical_image import MedicalImage
from lib.labels.seg_sources import Sources, source_headers
from lib.labels.segments import Segment

MANUFACTURER = "BioSAM-2"
MODEL = "biosam2"
VERSION = "0.1.0"
DESCRIPTION = "BioSAM-2 segmentation"
# All alphabets (PS3.3, C.12.1.1.2): a class may be named in another one than the patient.
_UTF_8 = "ISO_IR 192"
# DICOM PS3.16, CID 7162.
_FAMILY = Code("123109", "DCM", "Artificial Intelligence")
# Behind whatever the scanner made.
SERIES_NUMBER = 300


def write_dicom_seg(
    path: Path,
    labels: NDArray[np.uint8],
    image: MedicalImage,
    files: Sequence[Path],
    segments: Sequence[Segment],
) -> str:
    """Writes a label map as a BINARY segmentation of a series; slices where nothing is drawn are left out.

    Where nothing is drawn at all the first slice has an empty frame: DICOM wants at least one.
    Segments are numbered from 1 in ascending order of their values.

    Args:
        path: of the new file.
        labels: uint8 (I, J, K) on the image's grid, 0 for background.
        image: the series as it was opened.
        files: of the series, in any order; or the one file of many frames.
        segments: all values that are present, and at least one.

    Returns:
        The segmentation's Series Instance UID.

    Raises:
        LabelError: for a label map of another size, or a series that is not the image.
    """
    if labels.shape != image.shape:
        raise LabelError(f"the label is {labels.shape} and its image {image.shape}: save it on its image")
    sources = source_headers(files, image)
    numbered = np.zeros(256, np.uint8)
    for number, segment in enumerate(segments, 1):
        numbered[segment.value] = number
    frames = numbered[np.ascontiguousarray(labels.T)[sources.slices]]
    if not frames.any() and len(sources.headers) > 1:
        sources, frames = replace(sources, headers=sources.headers[:1]), frames[:1]
    with warnings.catch_warnings():
        # A patient's name of one part is what it is, and the store's to mend.
        warnings.filterwarnings("ignore", message=".*intended person name")
        made = _segmentation(sources, frames, segments)
    _complete(made, sources)
    made.save_as(path, write_like_original=False)
    return str(made.SeriesInstanceUID)


def _segmentation(
    sources: Sources, frames: NDArray[np.uint8], segments: Sequence[Segment]
) -> hd.seg.Segmentation:
    return hd.seg.Segmentation(
        source_images=sources.headers,
        pixel_array=frames,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_described(number, segment) for number, segment in enumerate(segments, 1)],
        series_instance_uid=generate_uid(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=VERSION,
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description=DESCRIPTION,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=bool(frames.any()),
        series_description=DESCRIPTION,
    )


def _described(number: int, segment: Segment) -> SegmentDescription:
    found = SegmentDescription(
        segment_number=number,
        segment_label=segment.name,
        segmented_property_category=segment.category,
        segmented_property_type=segment.type,
        algorithm_type=SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MANUFACTURER, version=VERSION, family=_FAMILY
        ),
    )
    found.RecommendedDisplayCIELabValue = segment.lab
    if segment.description:
        found.SegmentDescription = segment.description
    return found


def _complete(made: hd.seg.Segmentation, sources: Sources) -> None:
    """Says its alphabet and when it was made, and takes out the places that a loop of frames has not."""
    made.SpecificCharacterSet = _UTF_8
    offset = sources.headers[0].get("TimezoneOffsetFromUTC")
    now = datetime.now(timezone(utc_offset(offset))) if offset else datetime.now().astimezone()
    for name in ("Content", "Series", "InstanceCreation"):
        setattr(made, f"{name}Date", now.strftime("%Y%m%d"))
        setattr(made, f"{name}Time", now.strftime("%H%M%S.%f"))
    made.TimezoneOffsetFromUTC = now.strftime("%z")
    if not sources.is_placed:
        _number_by_time(made)


def _number_by_time(made: hd.seg.Segmentation) -> None:
    """Takes out the places that a loop of frames has not: what orders them is time."""
    del made.FrameOfReferenceUID, made.PositionReferenceIndicator
    made.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
    for item in made.PerFrameFunctionalGroupsSequence:
        del item.PlanePositionSequence
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        item.FrameContentSequence[0].TemporalPositionIndex = source.ReferencedFrameNumber
    order = made.DimensionIndexSequence[-1]
    order.DimensionIndexPointer = tag_for_keyword("TemporalPositionIndex")
    order.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    order.DimensionDescriptionLabel = "Temporal Position Index"
