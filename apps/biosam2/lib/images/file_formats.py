"""Endings of image and label files, and the formats that they stand for."""

from __future__ import annotations

from pathlib import Path

FORMATS = {
    "nifti": (".nii", ".nii.gz"),
    "itk": (".nrrd", ".nhdr", ".mha", ".mhd"),
    "raster": (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"),
    "video": (".mp4", ".avi", ".mov", ".mkv"),
    "dicom": (".dcm",),
}
# Whole slides, as scanners write them; pictures never have these endings.
SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide")
# Headers whose voxels are in another file, so that a client would get half an image.
DETACHED = (".mhd", ".nhdr")
# Files of a folder that are an image each; a slice of a DICOM series is none.
IMAGE_SUFFIXES = (
    *(suffix for name in FORMATS if name != "dicom" for suffix in FORMATS[name] if suffix not in DETACHED),
    *SLIDE_SUFFIXES,
)
# Of any other name, what stands after the last dot is the ending.
_DOUBLE_ENDINGS = (".nii.gz", ".seg.nrrd")


def split_ending(name: str) -> tuple[str, str]:
    """What stands before a file name's ending, and the ending as it is written; empty where there is none."""
    lowered = name.lower()
    double = next((ending for ending in _DOUBLE_ENDINGS if lowered.endswith(ending)), None)
    length = len(double or Path(name).suffix)
    return name[: len(name) - length], name[len(name) - length :]
