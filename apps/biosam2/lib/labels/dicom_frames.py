"""Frames of a DICOM segmentation: their pixels one by one, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pydicom
from highdicom.frame import decode_frame
from highdicom.spatial import PixelToReferenceTransformer
from numpy.typing import NDArray
from pydicom.encaps import generate_pixel_data_frame

from lib.errors import LabelError
from lib.images.dicom_tags import groups, numbers
from lib.images.medical_image import LPS_IDENTITY

# Direction cosines that differ by less are one direction: DICOM keeps decimals.
_SAME_DIRECTION = 1e-3
# Share of the pixel spacing below which two frames are in one plane. Slices never lie that close.
_SAME_PLANE = 0.1
# Share of the slice spacing that a frame may lie off its place in an even stack.
_EVEN = 0.1


class Frames:
    """Pixels of the frames; packed bits and compressed frames are unpacked when asked for.

    Args:
        dataset: a DICOM segmentation.

    Raises:
        LabelError: where there are fewer pixels than the header promises.
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
        slices: slice of each frame, from 0.
        depth: number of slices, with those that no frame is of.
    """

    affine: NDArray[np.float64]
    slices: list[int]
    depth: int


def stack_frames(dataset: pydicom.Dataset, image_affine: NDArray[np.float64]) -> Stack | None:
    """Puts the frames into one stack, whatever their order, and with places for those that are not there.

    Args:
        dataset: a DICOM segmentation.
        image_affine: the image's, (4, 4): its slice spacing counts where the file states none.

    Returns:
        The stack; None where frames have no position.

    Raises:
        LabelError: for frames of several directions or pixel spacings.
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
    return Stack(LPS_IDENTITY @ lps, slices.tolist(), int(slices.max()) + 1)


def _across(affine: NDArray[np.float64], normal: NDArray[np.float64]) -> list[float]:
    """The image's voxel spacing along a normal in LPS, where one of its axes runs along it."""
    columns = (LPS_IDENTITY @ affine)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    cosines = np.abs(normal @ columns) / lengths
    return lengths[cosines > 1 - _SAME_DIRECTION].tolist()


def _step(
    along: NDArray, measures: pydicom.Dataset | None, of_image: Sequence[float], same_plane: float
) -> float:
    """Slice spacing in millimetres: the first one known that all gaps are multiples of, else the least gap.

    Only where frames are missing does what is known matter: of a stack with every second frame the least gap
    is twice the spacing.
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
