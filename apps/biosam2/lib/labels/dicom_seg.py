"""Labels in DICOM segmentations: segments, and the frames that they lie in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pydicom
from highdicom.frame import decode_frame
from highdicom.spatial import PixelToReferenceTransformer
from numpy.typing import NDArray
from pydicom.encaps import generate_pixel_data_frame

from lib.errors import LabelError
from lib.images.dicom import series_files
from lib.images.dicom_header import file_beside, first_item, groups, numbers
from lib.images.medical_image import LPS_IDENTITY, MedicalImage, regular_affine, require_size
from lib.labels.values import LabelFile, most_voxels, paint_order

# Direction cosines that differ by less are one direction: DICOM keeps decimals.
_SAME_DIRECTION = 1e-3
# Share of the pixel spacing below which two frames are in one plane. Slices never lie that close.
_SAME_PLANE = 0.1
# Share of the slice spacing that a frame may lie off its place in an even stack.
_EVEN = 0.1


class SegmentFrames:
    """Pixels of the frames; packed bits and compressed frames are unpacked on access.

    Args:
        dataset: DICOM segmentation.

    Raises:
        LabelError: Fewer pixels than the header promises.
    """

    def __init__(self, dataset: pydicom.Dataset) -> None:
        self._dataset = dataset
        self._rows, self._columns = int(dataset.Rows), int(dataset.Columns)
        self._bits = int(dataset.BitsAllocated)
        self._is_compressed = bool(dataset.file_meta.TransferSyntaxUID.is_compressed)
        self.count = int(dataset.get("NumberOfFrames") or 1)
        needed = -(-self.count * self._rows * self._columns * self._bits // 8)
        got = len(dataset.get("PixelData") or b"")
        if not got or (got < needed and not self._is_compressed):
            raise LabelError(
                f"the file is cut off: its header promises {needed} bytes of pixels and it holds {got}"
            )

    def __getitem__(self, index: int) -> NDArray:
        """(I, J) pixels of a frame, columns first."""
        size = self._rows * self._columns
        if self._is_compressed:
            return self._decoded(self._items[index]).T
        content, start = self._dataset.PixelData, index * size
        if self._bits == 1:
            # Frames follow each other bit by bit, so one can start within a byte (DICOM PS3.5, 8.1.1).
            packed = np.frombuffer(content, np.uint8, (start + size + 7) // 8 - start // 8, start // 8)
            pixels = np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + size]
        else:
            dtype = np.dtype(f"{'<' if self._dataset.is_little_endian else '>'}u{self._bits // 8}")
            pixels = np.frombuffer(content, dtype, size, start * dtype.itemsize)
        return pixels.reshape(self._rows, self._columns).T

    @cached_property
    def _items(self) -> list[bytes]:
        items = list(generate_pixel_data_frame(self._dataset.PixelData, self.count))
        if len(items) < self.count:
            raise LabelError(f"the file is cut off: {len(items)} of its {self.count} frames are there")
        return items

    def _decoded(self, item: bytes) -> NDArray:
        dataset = self._dataset
        return decode_frame(
            item,
            transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
            rows=self._rows,
            columns=self._columns,
            samples_per_pixel=1,
            bits_allocated=self._bits,
            bits_stored=int(dataset.BitsStored),
            photometric_interpretation=dataset.PhotometricInterpretation,
            pixel_representation=int(dataset.PixelRepresentation),
        )


@dataclass(frozen=True, eq=False)
class Stack:
    """The even stack of slices that frames belong to.

    Attributes:
        affine: (4, 4), pixel column, row and slice to RAS millimetres.
        slices: Slice of each frame, from 0.
        depth: Number of slices, including those without a frame.
    """

    affine: NDArray[np.float64]
    slices: list[int]
    depth: int


def stack_frames(dataset: pydicom.Dataset, image_affine: NDArray[np.float64]) -> Stack | None:
    """Sorts the frames into one stack, with empty slices for missing frames.

    Args:
        dataset: DICOM segmentation.
        image_affine: Affine of the image, (4, 4); its slice spacing is used if the file states none.

    Returns:
        The stack; None if frames have no position.

    Raises:
        LabelError: Frames of several directions or pixel spacings.
    """
    positions = [numbers(item, "ImagePositionPatient") for item in groups(dataset, "PlanePositionSequence")]
    turns = [numbers(item, "ImageOrientationPatient") for item in groups(dataset, "PlaneOrientationSequence")]
    measures = groups(dataset, "PixelMeasuresSequence")
    sizes = [numbers(item, "PixelSpacing") for item in measures]
    if {len(values) for values in positions} != {3} or {len(values) for values in turns} != {6}:
        return None
    if {len(values) for values in sizes} != {2}:
        return None
    if np.ptp(turns, axis=0).max() > _SAME_DIRECTION or not np.allclose(sizes, sizes[0], rtol=1e-3):
        raise LabelError("its frames have several directions or pixel spacings: segment one series per file")
    normal = np.cross(turns[0][:3], turns[0][3:])
    along = np.array(positions) @ normal
    step = _step(along, measures[0], _across(image_affine, normal), _SAME_PLANE * min(sizes[0]))
    slices = np.floor((along - along.min()) / step + 0.5).astype(int)
    first = PixelToReferenceTransformer(positions[int(along.argmin())], turns[0], sizes[0])
    lps = first.affine.copy()
    lps[:3, 2] = normal * step
    if slices.max() > 0:
        # Of a tilted gantry the slices are shifted within their plane as well.
        apart = np.array(positions[int(along.argmax())]) - np.array(positions[int(along.argmin())])
        lps[:3, 2] = apart / slices.max()
    return Stack(LPS_IDENTITY @ lps, slices.tolist(), int(slices.max()) + 1)


def _across(affine: NDArray[np.float64], normal: NDArray[np.float64]) -> list[float]:
    """The image's slice spacing along a normal in LPS, where two of its axes lie across it."""
    columns = (LPS_IDENTITY @ affine)[:3, :3]
    along = np.abs(normal @ columns)
    cosines = along / np.linalg.norm(columns, axis=0)
    axis = int(cosines.argmax())
    return [float(along[axis])] if np.delete(cosines, axis).max() < _SAME_DIRECTION else []


def _step(
    along: NDArray, measures: pydicom.Dataset | None, of_image: Sequence[float], same_plane: float
) -> float:
    """Slice spacing in millimetres: the first known one of which all gaps are multiples, else the least gap.

    The known ones matter if frames are missing: with every second frame the least gap is twice the spacing.
    """
    ordered = np.sort(along)
    gaps = np.diff(ordered)
    gaps = gaps[gaps > same_plane]
    for known in (
        *numbers(measures, "SpacingBetweenSlices"),
        *of_image,
        *numbers(measures, "SliceThickness"),
    ):
        step = abs(known)
        if step <= same_plane or (gaps.size and step > gaps.min() * (1 + _EVEN)):
            continue
        slices = (ordered - ordered[0]) / step
        if np.abs(slices - np.rint(slices)).max() < _EVEN:
            return step
    return float(gaps.min()) if gaps.size else 1.0


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
        LabelError: Another kind of DICOM file, one that is cut off, or one of another series.
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
    """A DICOM file of the image's series, if there is one."""
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
    frames = SegmentFrames(dataset)
    for index, k in enumerate(slices):
        array[:, :, k] = frames[index]


def _paint_segments(dataset: pydicom.Dataset, slices: list[int], array: NDArray[np.uint16]) -> None:
    """Paints the segments frame by frame, so that one frame at a time is unpacked."""
    frames, owners = SegmentFrames(dataset), _owners(dataset)
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
