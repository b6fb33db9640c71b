"""Labels in DICOM segmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from lib.errors import LabelError
from lib.images.dicom import series_files
from lib.images.dicom_header import file_beside
from lib.images.dicom_tags import first_item, groups
from lib.images.medical_image import MedicalImage, regular_affine, require_size
from lib.labels.dicom_frames import Frames, stack_frames
from lib.labels.label_file import LabelFile, most_voxels
from lib.labels.overlaps import paint_order

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
# Share of a voxel that a fractional segment must fill.
_HALF = 0.5


def read_dicom_seg(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a DICOM segmentation: binary, fractional from one half on, or a label map.

    Values are segment numbers and names are segment labels. Frames may be on another grid than the image's,
    in any order, and missing where they would be empty. Frames without a position, as of an ultrasound loop,
    are those of the image that they refer to. See ``paint_order`` for voxels in two segments.

    Raises:
        LabelError: for another kind of DICOM file, one that is cut off, or one of another series.
    """
    dataset = pydicom.dcmread(path)
    kind = dataset.get("SOPClassUID")
    if kind not in (_SEGMENTATION, _LABEL_MAP_SEGMENTATION):
        raise LabelError(
            f"it is DICOM of modality {dataset.get('Modality') or 'unknown'} and no segmentation: export the "
            "label as DICOM SEG, NIfTI or NRRD"
        )
    _require_same_frame_of_reference(dataset, image)
    stack = stack_frames(dataset, image.affine)
    slices, depth = (stack.slices, stack.depth) if stack else (_source_slices(dataset, image), image.shape[2])
    shape = (int(dataset.Columns), int(dataset.Rows), depth)
    require_size(shape, most_voxels(image))
    array = np.zeros(shape, dtype=np.uint16, order="F")
    if kind == _LABEL_MAP_SEGMENTATION:
        _fill_label_map(dataset, slices, array)
    else:
        _paint_segments(dataset, slices, array)
    names = {
        int(segment.SegmentNumber): str(segment.get("SegmentLabel") or "").strip()
        for segment in dataset.get("SegmentSequence") or []
    }
    affine = regular_affine(stack.affine) if stack else None
    return LabelFile(array, affine, {value: name for value, name in names.items() if value and name})


def _require_same_frame_of_reference(dataset: pydicom.Dataset, image: MedicalImage) -> None:
    source = _source(image)
    if source is None:
        return
    tags = pydicom.dcmread(source, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
    own, images = dataset.get("FrameOfReferenceUID"), tags.get("FrameOfReferenceUID")
    if own and images and own != images:
        raise LabelError(
            f"it was drawn in the frame of reference {own} and its image lies in {images}: it belongs to "
            "another series; export it again from this one"
        )


def _source(image: MedicalImage) -> Path | None:
    """A DICOM file of the image's series, where one is at hand."""
    if not image.path.exists():
        return None
    if image.format == "dicom":
        return series_files(image.path)[0] if image.path.is_dir() else image.path
    return file_beside(image.path)


def _source_slices(dataset: pydicom.Dataset, image: MedicalImage) -> list[int]:
    """Slice of the image that each frame refers to."""
    depth = image.shape[2]
    slices = []
    for item in groups(dataset, "DerivationImageSequence"):
        source = first_item(item, "SourceImageSequence")
        number = source.get("ReferencedFrameNumber") if source is not None else None
        slices.append(int(number) - 1 if number else -1)
    if depth == 1:
        return [0] * len(slices)
    if not all(0 <= index < depth for index in slices):
        raise LabelError(
            f"its frames have neither a position nor the number of one of the image's {depth} frames: export "
            "the label as NIfTI or NRRD instead"
        )
    return slices


def _fill_label_map(dataset: pydicom.Dataset, slices: list[int], array: NDArray[np.uint16]) -> None:
    frames = Frames(dataset)
    for index, k in enumerate(slices):
        array[:, :, k] = frames[index]


def _paint_segments(dataset: pydicom.Dataset, slices: list[int], array: NDArray[np.uint16]) -> None:
    """Paints the segments frame by frame, so that one frame at a time is unpacked."""
    frames, owners = Frames(dataset), _owners(dataset)
    is_fractional = dataset.get("SegmentationType") == "FRACTIONAL"
    least = _HALF * float(dataset.get("MaximumFractionalValue") or 255) if is_fractional else 1
    sizes = dict.fromkeys(sorted(set(owners)), 0)
    for index, owner in enumerate(owners):
        sizes[owner] += int(np.count_nonzero(frames[index] >= least))
    numbers = list(sizes)
    for place in paint_order([sizes[number] for number in numbers]):
        for index, owner in enumerate(owners):
            if owner == numbers[place]:
                array[:, :, slices[index]][frames[index] >= least] = owner


def _owners(dataset: pydicom.Dataset) -> list[int]:
    """Segment number of each frame."""
    items = groups(dataset, "SegmentIdentificationSequence")
    segments = [int(segment.SegmentNumber) for segment in dataset.get("SegmentSequence") or []]
    if len(segments) == 1:
        return segments * len(items)
    owners = [int(item.ReferencedSegmentNumber) for item in items if item is not None]
    if len(owners) < len(items) or not set(owners) <= set(segments):
        raise LabelError("its frames do not say which of its segments they show: export it again")
    return owners
