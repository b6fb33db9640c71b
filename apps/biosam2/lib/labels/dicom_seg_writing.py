"""Label maps to DICOM segmentations, which any viewer of the series shows in the right place."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DA, DT, TM
from skimage.color import rgb2lab

from lib.errors import LabelError
from lib.images.dicom import series_files
from lib.images.dicom_header import utc_offset
from lib.images.dicom_stack import OFF_PLACE
from lib.images.medical_image import LPS_IDENTITY, MedicalImage
from lib.palette import CLASS_COLOURS
from lib.transforms.frames import spacing

# DICOM PS3.16: categories (CID 7150), and the context group in which the types of each stand.
_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
_TISSUE = Code("85756007", "SCT", "Tissue")
_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_CATEGORIES = (
    (_ANATOMY, "cid7192"),
    (_TISSUE, "cid7191"),
    (_ABNORMAL, "cid7194"),
    (Code("260787004", "SCT", "Physical object"), "cid7193"),
    (Code("91720002", "SCT", "Body Substance"), "cid7197"),
)
# Common names that the context groups lack or spell differently.
_ALSO = {
    "Tumor": (_ABNORMAL, Code("108369006", "SCT", "Neoplasm")),
    "Tumour": (_ABNORMAL, Code("108369006", "SCT", "Neoplasm")),
    "Lesion": (_ABNORMAL, Code("52988006", "SCT", "Lesion")),
}
# Words that no code contains.
_SIDES = {"left", "right"}
# Bounds of L*, a* and b* that 0 to 65535 stand for (PS3.3, C.10.7.1.1).
_LAB_LOW, _LAB_HIGH = np.array([0.0, -128.0, -128.0]), np.array([100.0, 127.0, 127.0])
# A segment's label is a long string: 64 characters, and a backslash would make two of it.
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Segment:
    """One class of a label map, as DICOM describes it.

    Attributes:
        value: Value in the label map.
        name: Segment label.
        category: Code of the property category, such as tissue.
        type: Code of the property type, such as liver.
        colour: Red, green and blue, 0 to 255.
        description: Free text; may be empty.
    """

    value: int
    name: str
    category: Code
    type: Code
    colour: tuple[int, int, int]
    description: str = ""

    @property
    def lab(self) -> list[int]:
        """Colour as DICOM stores it: CIELab in whole numbers from 0 to 65535."""
        lab = rgb2lab(np.array(self.colour, dtype=float) / 255)
        shares = (lab - _LAB_LOW) / (_LAB_HIGH - _LAB_LOW)
        return [int(number) for number in np.rint(np.clip(shares, 0, 1) * 65535)]


def describe_segments(
    names: Mapping[int, str], label_info: Sequence[Mapping[str, Any]] | None = None
) -> list[Segment]:
    """Describes the values of a label map by their names and the client's entries.

    A name that DICOM knows gets its code ("liver", "left kidney", "tumor"); any other is a tissue, as 3D
    Slicer has it. An entry's ``segmentAttribute``, as dcmqi has it, comes before that.

    Args:
        names: Value to name, for all values that are present.
        label_info: ``[{"name": "spleen", "color": [r, g, b], "description": ...}, ...]``.
    """
    entries = {str(entry.get("name") or "").strip(): entry for entry in _mappings(label_info)}
    segments = []
    for place, (value, name) in enumerate(sorted(names.items())):
        entry = entries.get(name, {})
        category, kind = _codes(name, entry.get("segmentAttribute"))
        segments.append(
            Segment(
                value,
                name.replace("\\", "/")[:_LONGEST_NAME],
                category,
                kind,
                _colour(entry.get("color")) or CLASS_COLOURS[place % len(CLASS_COLOURS)],
                str(entry.get("description") or ""),
            )
        )
    return segments


def _mappings(items: Iterable[Any] | None) -> list[Mapping[str, Any]]:
    return [item for item in items or () if isinstance(item, Mapping)]


def _codes(name: str, attribute: Any) -> tuple[Code, Code]:
    """Category and type of a segment."""
    known = attribute if isinstance(attribute, Mapping) else {}
    category = _code(known.get("SegmentedPropertyCategoryCodeSequence"))
    kind = _code(known.get("SegmentedPropertyTypeCodeSequence"))
    if category and kind:
        return category, kind
    words = [word for word in re.findall(r"[A-Za-z]+", name.lower()) if word not in _SIDES]
    keyword = "".join(word.capitalize() for word in words)
    if keyword in _ALSO:
        return _ALSO[keyword]
    for category, group in _CATEGORIES:
        found = getattr(getattr(codes, group), keyword, None) if keyword else None
        if isinstance(found, Code):
            return category, found
    return _TISSUE, _TISSUE


def _code(item: Any) -> Code | None:
    """A code as dcmqi writes it: one mapping, or a list of one."""
    first = item[0] if isinstance(item, list) and item else item
    if not isinstance(first, Mapping):
        return None
    parts = [str(first.get(key) or "") for key in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")]
    return Code(*parts) if all(parts) else None


def _colour(value: Any) -> tuple[int, int, int] | None:
    """Red, green and blue, if a client sent at least three numbers."""
    try:
        red, green, blue = (min(255, max(0, int(number))) for number in list(value)[:3])
    except (TypeError, ValueError):
        return None
    return red, green, blue


logger = logging.getLogger(__name__)

MANUFACTURER = "BioSAM-2"
MODEL = "biosam2"
VERSION = "0.1.0"
DESCRIPTION = "BioSAM-2 segmentation"
# All alphabets (PS3.3, C.12.1.1.2): class names and the patient's name may use different ones.
_UTF_8 = "ISO_IR 192"
# DICOM PS3.16, CID 7162.
_FAMILY = Code("123109", "DCM", "Artificial Intelligence")
# Higher than the series numbers of scanners.
SERIES_NUMBER = 300
# Decimals that DICOM and NIfTI cut off, in voxels.
_ROUNDING = 0.05
# Type 2 attributes: required by the standard, possibly empty, and missing in many files.
_TYPE_2 = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
_SEXES = ("M", "F", "O", "")


_DATES = {"DA": DA, "TM": TM, "DT": DT}
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@dataclass(frozen=True, eq=False)
class Sources:
    """A series from which a segmentation is derived.

    Attributes:
        headers: One for each slice, or the one of a file of many frames.
        slices: Slice of the image for each header, or for each frame.
        is_placed: Whether the slices lie anywhere in space; the frames of a loop do not.
    """

    headers: list[pydicom.Dataset]
    slices: list[int]
    is_placed: bool


def source_headers(files: Sequence[Path], image: MedicalImage) -> Sources:
    """Reads the headers of a series, and finds the image's slice for each.

    Args:
        files: Files of the series, in any order.
        image: The series as it was opened.

    Raises:
        LabelError: Files and image are not the same series.
    """
    headers = [_tidy(pydicom.dcmread(file, stop_before_pixels=True), file) for file in files]
    if any((int(one.Columns), int(one.Rows)) != image.shape[:2] for one in headers):
        raise LabelError("its image and the DICOM series have slices of different sizes")
    if len(headers) == 1 and "NumberOfFrames" in headers[0]:
        return _frames(headers[0], image)
    if len(headers) != image.shape[2]:
        raise LabelError(f"its image has {image.shape[2]} slices and the DICOM series {len(headers)}")
    if len(headers) == 1 and "ImagePositionPatient" not in headers[0]:
        # A radiograph or an ultrasound picture: without a position a frame of reference has no use.
        headers[0].pop("FrameOfReferenceUID", None)
        return Sources(headers, [0], is_placed=True)
    if all(header.get(name) for header in headers for name in _PLACE[:2]):
        slices = _slices([one.ImagePositionPatient for one in headers], image)
    else:
        order = {file.name: k for k, file in enumerate(series_files(files[0].parent))}
        slices = [order[file.name] for file in files]
    _place(headers, slices, image)
    return Sources(headers, slices, is_placed=True)


def _tidy(header: pydicom.Dataset, file: Path) -> pydicom.Dataset:
    """Completes a header as the standard and highdicom require it."""
    for name in _TYPE_2:
        if header.get(name) is None:
            setattr(header, name, "")
    if header.PatientSex not in _SEXES:
        header.PatientSex = ""
    if header.get("LossyImageCompression") == "01" and not (
        header.get("LossyImageCompressionRatio") and header.get("LossyImageCompressionMethod")
    ):
        del header.LossyImageCompression
    for element in header:
        if element.VR in _DATES and (valid := _valid_date(element.value, element.VR)) != element.value:
            logger.warning(
                "%s: %s is %r and becomes %r in the segmentation",
                file.name,
                element.keyword or element.tag,
                str(element.value),
                valid,
            )
            element.value = valid
    return header


def _valid_date(value: Any, representation: str) -> Any:
    """Date or time as DICOM spells it; empty where it is none, as anonymizers leave them."""
    if not value or isinstance(value, MultiValue):
        return value
    for text in (str(value), re.sub(r"[^0-9.]", "", str(value))):
        try:
            _DATES[representation](text)
        except (ValueError, TypeError, OverflowError):
            continue
        return value if text == str(value) else text
    return ""


def _place(headers: Sequence[pydicom.Dataset], slices: Sequence[int], image: MedicalImage) -> None:
    """Completes where the slices lie: one frame of reference, and the grid on which the series was opened."""
    own = next((one.FrameOfReferenceUID for one in headers if one.get("FrameOfReferenceUID")), generate_uid())
    absent = [name for name in _PLACE if not all(header.get(name) for header in headers)]
    if absent:
        logger.warning(
            "Series %s has no %s: its segmentation gets the grid on which it was opened",
            headers[0].get("SeriesInstanceUID"),
            " and no ".join(absent),
        )
    step = round(_step(image), 6)
    for header, k in zip(headers, slices, strict=True):
        header.FrameOfReferenceUID = own
        for name, values in zip(_PLACE, _grid(image, k), strict=True):
            if absent:
                setattr(header, name, values)
        if not header.get("SliceThickness"):
            header.SliceThickness = step
        header.SpacingBetweenSlices = step


def _grid(image: MedicalImage, k: int) -> tuple[list[float], list[float], list[float]]:
    """Position, orientation and pixel spacing of slice k, as DICOM has them."""
    lps: NDArray[np.float64] = LPS_IDENTITY @ image.affine
    sides = spacing(lps)
    axes = lps[:3, :3] / sides
    position, orientation = (lps @ [0, 0, k, 1])[:3], [*axes[:, 0], *axes[:, 1]]
    return (
        [round(float(value), 6) for value in position],
        [round(float(value), 9) for value in orientation],
        [round(sides[1], 9), round(sides[0], 9)],
    )


def _step(image: MedicalImage) -> float:
    """Millimetres between slices along their normal, which is shorter than the third axis of a tilted one."""
    axes = image.affine[:3, :3] / spacing(image.affine)
    return float(abs(np.cross(axes[:, 0], axes[:, 1]) @ image.affine[:3, 2]))


def _slices(positions: Sequence[Sequence[float]], image: MedicalImage) -> list[int]:
    """The image's slice whose first voxel lies at each position in LPS."""
    lps = np.column_stack([np.array(positions, dtype=float), np.ones(len(positions))])
    voxels = (np.linalg.inv(LPS_IDENTITY @ image.affine) @ lps.T).T[:, :3]
    slices = np.empty(len(voxels), int)
    slices[np.argsort(voxels[:, 2])] = np.arange(len(voxels))
    apart = np.abs(voxels - np.column_stack([np.zeros((len(slices), 2)), slices]))
    # As even as the series had to be to be opened.
    if len(slices) != image.shape[2] or apart.max() > OFF_PLACE + _ROUNDING:
        raise LabelError("its image lies elsewhere than the DICOM series: it is of another series")
    return [int(k) for k in slices]


def _frames(header: pydicom.Dataset, image: MedicalImage) -> Sources:
    """Sources of a file of many frames: each with its position, or in the order of time."""
    count = int(header.NumberOfFrames)
    if count != image.shape[2]:
        raise LabelError(f"its image has {image.shape[2]} slices and the DICOM file {count} frames")
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    positions = [
        group.PlanePositionSequence[0].ImagePositionPatient
        for group in groups
        if group.get("PlanePositionSequence")
    ]
    is_placed = len(positions) == count and bool(header.get("FrameOfReferenceUID"))
    slices = _slices(positions, image) if is_placed else list(range(count))
    _group(header, image, slices)
    if not is_placed:
        header.FrameOfReferenceUID = generate_uid()
    return Sources([header], slices, is_placed)


def _group(header: pydicom.Dataset, image: MedicalImage, slices: Sequence[int]) -> None:
    """Writes the frames' places as functional groups, the one form in which highdicom reads them.

    A loop of frames has none: it gets those of its pixels' grid, which are taken out again.
    """
    shared, orientation = pydicom.Dataset(), pydicom.Dataset()
    orientation.ImageOrientationPatient = _grid(image, 0)[1]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [_measures(image)], [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    items = []
    for k in slices:
        position, item = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = _grid(image, k)[0]
        item.PlanePositionSequence = [position]
        items.append(item)
    header.PerFrameFunctionalGroupsSequence = items


def _measures(image: MedicalImage) -> pydicom.Dataset:
    """Pixel measures of the image's voxels."""
    measures = pydicom.Dataset()
    measures.PixelSpacing = _grid(image, 0)[2]
    measures.SliceThickness = measures.SpacingBetweenSlices = round(_step(image), 9)
    return measures


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
        path: New file.
        labels: uint8 (I, J, K) on the image's grid, 0 for background.
        image: The series as it was opened.
        files: Files of the series, in any order; or the one file of many frames.
        segments: Segments of all values that are present, at least one.

    Returns:
        The segmentation's Series Instance UID.

    Raises:
        LabelError: A label map of another size, or a series that is not the image.
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
        # Names of one part are valid enough: the warning helps nobody here.
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
    """Sets character set and dates, and removes positions if the frames are a loop in time."""
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
    """Replaces the positions of a loop of frames by their order in time."""
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
