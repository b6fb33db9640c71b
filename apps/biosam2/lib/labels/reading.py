"""Opens a label with the reader of its format, on its image's grid, and reports failures as LabelError.

Pictures (PNG, TIFF and BMP) have one value or one colour for each object or class.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lib.errors import BioSam2Error, LabelError
from lib.images.itk import read_itk
from lib.images.medical_image import MedicalImage, regular_affine
from lib.images.nifti import read_nifti, read_nifti_header, states_geometry
from lib.images.raster import is_tiff, open_raster, pages, tiff_numbers
from lib.images.reading import is_dicom, reason
from lib.labels.dicom_seg import read_dicom_seg
from lib.labels.grid import on_image_grid
from lib.labels.nrrd import read_nrrd_label
from lib.labels.polygons import read_polygon_label
from lib.labels.values import (
    MOST_OBJECTS,
    LabelFile,
    LabelMap,
    as_labels,
    most_voxels,
    name_values,
    present_values,
)

# More colours than any list of classes has, and fewer than any photograph.
_MOST_COLOURS = 255
# Modes of Pillow with one number for each pixel; the others are converted to colours first.
_NUMBERS = ("1", "L", "I;16", "I;16L", "I;16B", "I", "F")


def read_picture_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a picture, which has no geometry; array[x, y, k] is the pixel in column x and row y of page k.

    Greys are values. Of a picture with a palette the values are the palette's indices, unless the palette has
    nothing but greys. Of a picture in colours, black and transparent pixels are background and every other
    colour is a value, in ascending order of red, green, blue, and its name is ``#rrggbb``.

    Raises:
        LabelError: A JPEG, more than 255 colours, or a stack of colours.
        ImageError: An animation, or pages of several kinds.
        ImageTooLargeError: By the header, before pixels are read.
    """
    numbers = tiff_numbers(path, most_voxels(image)) if is_tiff(path) else None
    if numbers is not None and numbers.ndim == 3:
        return LabelFile(numbers.swapaxes(0, 2), None)
    with open_raster(path, most_voxels(image)) as opened:
        if opened.format == "JPEG":
            raise LabelError("it is a JPEG, which changes the values of labels: save it as PNG")
        found = [_pixels(page) for page in pages(opened)]
    if len(found) > 1 and any(names for _, names in found):
        raise LabelError("it is a stack of colours: save one number for each pixel, 0 for background")
    return LabelFile(np.stack([pixels for pixels, _ in found]).swapaxes(0, 2), None, found[0][1])


def _pixels(opened: Image.Image) -> tuple[NDArray, dict[int, str]]:
    """(H, W) numbers, and the names of those that stand for colours."""
    if opened.mode in _NUMBERS:
        return np.asarray(opened), {}
    if opened.mode == "P" and _is_coloured(opened):
        return np.asarray(opened), {}
    channels = np.asarray(opened.convert("RGBA"))
    visible = channels[..., 3] > 0
    red, green, blue = (np.where(visible, channels[..., channel], 0) for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red, {}
    packed = red.astype(np.uint32) << 16 | green.astype(np.uint32) << 8 | blue
    return _numbered(packed)


def _is_coloured(opened: Image.Image) -> bool:
    """True if a palette has colours: a palette of greys means grey levels, not class numbers."""
    used = np.unique(np.asarray(opened))
    palette = np.array(opened.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    shown = palette[used[used < len(palette)]]
    return bool((shown != shown[:, :1]).any())


def _numbered(packed: NDArray[np.uint32]) -> tuple[NDArray, dict[int, str]]:
    colours = np.unique(packed)
    colours = colours[colours != 0]
    if len(colours) > _MOST_COLOURS:
        raise LabelError(
            f"it is a picture of {len(colours)} colours and {_MOST_COLOURS} classes are the limit: save a "
            "label of one number for each pixel, without smooth edges"
        )
    table = np.concatenate([[0], colours]).astype(np.uint32)
    values = np.searchsorted(table, packed).astype(np.uint8)
    return values, {value: f"#{colour:06x}" for value, colour in enumerate(colours.tolist(), 1)}


# Fewer pieces of one class are one object in parts, such as two lungs or an organ cut by a vessel.
LEAST_PIECES = 3
# A piece is a speck, the slip of a brush, below so many pixels,
SPECK_PIXELS = 5
# or below that share of the typical piece. In three electron micrographs, with cells of up to 23,828 pixels,
# it takes pieces of up to 10 and leaves one of 12.
SPECK_SHARE = 0.003


def split_instances(array: NDArray) -> NDArray | None:
    """Numbers the pieces of a 2-D label of one class, if they are so many that they must be objects.

    A piece is connected by edges; cells that touch by a corner are two. Specks become background.

    Args:
        array: (I, J, 1), with one value besides 0.

    Returns:
        uint8 or uint16 of the same shape, pieces as 1, 2, 3 ...; None if there are fewer than three.

    Raises:
        LabelError: More than 65535 pieces.
    """
    pieces, count = ndimage.label(array[:, :, 0] != 0)
    if count < LEAST_PIECES:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = np.flatnonzero(sizes >= max(SPECK_PIXELS, SPECK_SHARE * _typical(sizes)))
    if len(kept) < LEAST_PIECES:
        return None
    if len(kept) > MOST_OBJECTS:
        raise LabelError(
            f"it has {len(kept)} separate pieces and {MOST_OBJECTS} objects are the limit: crop it"
        )
    dtype = np.uint8 if len(kept) <= np.iinfo(np.uint8).max else np.uint16
    numbers = np.zeros(count + 1, dtype=dtype)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return np.asfortranarray(numbers[pieces][:, :, None])


def _typical(sizes: NDArray) -> float:
    """Size of the piece that holds the median pixel: many specks do not make it small."""
    ascending = np.sort(sizes)
    return float(ascending[np.searchsorted(np.cumsum(ascending), ascending.sum() / 2)])


def read_nifti_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a NIfTI label; without an affine in its header it has no position.

    Raises:
        LabelError: Colours.
        ImageError: More than three axes, or fewer bytes than the header promises.
    """
    voxels = read_nifti(path, most_voxels(image))
    if voxels.array.ndim != 3:
        raise LabelError("its voxels are colours: save one number for each voxel, 0 for background")
    header = read_nifti_header(path)
    if not states_geometry(header):
        return LabelFile(voxels.array, None)
    is_image_grid = voxels.array.shape == image.shape and _has_sform_of(image, header)
    return LabelFile(voxels.array, image.affine if is_image_grid else regular_affine(voxels.affine))


def _has_sform_of(image: MedicalImage, header: Any) -> bool:
    """True if a label has its image's sform: nibabel's programs copy it alone, and ITK may ignore it."""
    if image.format != "nifti" or not image.path.is_file():
        return False
    sforms = [one.get_sform(coded=True)[0] for one in (header, read_nifti_header(image.path))]
    return all(sform is not None for sform in sforms) and np.allclose(*sforms)


def read_metaimage_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a MetaImage label.

    Raises:
        LabelError: Colours.
        ImageError: More than three axes, several channels, or voxels in another file.
    """
    voxels = read_itk(path, most_voxels(image))
    if voxels.array.ndim != 3:
        raise LabelError("its voxels are colours: save one number for each voxel, 0 for background")
    return LabelFile(voxels.array, regular_affine(voxels.affine))


logger = logging.getLogger(__name__)

Reader = Callable[[Path, MedicalImage], LabelFile]

_FORMATS: tuple[tuple[Reader, tuple[str, ...]], ...] = (
    (read_nifti_label, (".nii", ".nii.gz")),
    (read_nrrd_label, (".nrrd",)),
    (read_metaimage_label, (".mha", ".mhd")),
    (read_picture_label, (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")),
    (read_polygon_label, (".xml", ".geojson")),
    (read_dicom_seg, (".dcm",)),
)
# Types of label files in lower case; ``.seg.nrrd`` is one of ``.nrrd``.
LABEL_SUFFIXES = tuple(suffix for _, suffixes in _FORMATS for suffix in suffixes)


def read_labels(
    path: Path, image: MedicalImage, label_info: Sequence[Mapping[str, Any]] | None = None
) -> LabelMap:
    """Reads a label file onto the grid of its image.

    Args:
        path: Label file of a viewer or MONAI Label.
        image: Image that it belongs to.
        label_info: Classes in the datastore's info, ``[{"name": "spleen", "idx": 1}, ...]``.

    Returns:
        The label; without names if nothing is drawn in it.

    Raises:
        LabelError: With the file's name, what does not fit, and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise LabelError(f"there is no label file {path.name!r}: save the label again")
    if not path.stat().st_size:
        raise LabelError(f"{path.name} is empty (0 bytes): save or export the label again")
    try:
        return _label_map(path, image, label_info)
    except BioSam2Error as error:
        raise LabelError(f"{path.name}: {error}") from error
    except Exception as error:
        # A damaged file makes the libraries raise anything, from EOFError to struct.error.
        raise LabelError(
            f"{path.name} cannot be read as a label: {reason(error, path)}; save or export it again"
        ) from error


def _label_map(path: Path, image: MedicalImage, label_info: Sequence[Mapping[str, Any]] | None) -> LabelMap:
    found = _reader(path)(path, image)
    labels, numbers = as_labels(found.array)
    named = name_values(list(numbers.values()), found.names, None if found.has_instances else label_info)
    names = {value: named[number] for value, number in numbers.items()}
    array = on_image_grid(replace(found, array=labels), image)
    if names:
        names = _present(array, names, path)
    if image.is_2d and len(names) == 1 and not found.has_instances:
        pieces = split_instances(array)
        if pieces is not None:
            (name,) = names.values()
            array, names = pieces, dict.fromkeys(present_values(pieces), name)
    array.flags.writeable = False
    return LabelMap(array, names)


def _present(array: NDArray, names: Mapping[int, str], path: Path) -> dict[int, str]:
    """Names of the values that are present on the image's grid."""
    present = present_values(array)
    if not present:
        raise LabelError(
            "none of its objects lies inside its image: it is the label of another image; export it again "
            "from this one"
        )
    lost = [name for value, name in names.items() if value not in set(present)]
    if lost:
        logger.warning("%s: on the image's grid nothing is left of %s", path.name, ", ".join(lost))
    return {value: names[value] for value in present}


def _reader(path: Path) -> Reader:
    lowered = path.name.lower()
    for reader, suffixes in _FORMATS:
        if lowered.endswith(suffixes):
            return reader
    if is_dicom(path):
        return read_dicom_seg
    known = ", ".join(suffix for _, suffixes in _FORMATS for suffix in suffixes)
    raise LabelError(f"it is of no kind that can be read as a label: export one of {known}")
