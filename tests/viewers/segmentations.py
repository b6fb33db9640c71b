"""DICOM segmentations in the store, read by pydicom alone: no code under test has a part in it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pydicom
import requests

from sample_study.orthanc import Orthanc
from tests.viewers.cases import Case

LIMIT_S = 60


@dataclass(frozen=True)
class Stored:
    """A segmentation of the store.

    Attributes:
        dataset: as DICOM.
    """

    dataset: pydicom.Dataset

    @property
    def names(self) -> dict[str, int]:
        """Segment numbers by label."""
        return {item.SegmentLabel: int(item.SegmentNumber) for item in self.dataset.SegmentSequence}

    @property
    def image_uid(self) -> str:
        """The series that it belongs to."""
        return str(self.dataset.ReferencedSeriesSequence[0].SeriesInstanceUID)

    def mask(self, name: str, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The voxels ``[i, j, k]`` of a grid that lie where the segment's pixels lie in the patient.

        Args:
            name: of the segment.
            affine: ``(4, 4)``, the grid's voxel indices to RAS millimetres.
            shape: of the grid.
        """
        mask = np.zeros(shape, bool)
        shared = self.dataset.SharedFunctionalGroupsSequence[0]
        pixels = self.dataset.pixel_array
        pixels = pixels.reshape(-1, *pixels.shape[-2:])
        for frame, own in zip(pixels, self.dataset.PerFrameFunctionalGroupsSequence, strict=True):
            segment = own.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
            if segment[0].ReferencedSegmentNumber != self.names[name]:
                continue
            measures = (own.get("PixelMeasuresSequence") or shared.PixelMeasuresSequence)[0]
            plane = (own.get("PlaneOrientationSequence") or shared.PlaneOrientationSequence)[0]
            place = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
            along = np.array(plane.ImageOrientationPatient, float).reshape(2, 3)
            down, right = np.array(measures.PixelSpacing, float)
            rows, columns = np.nonzero(frame)
            lps = place + np.outer(columns * right, along[0]) + np.outer(rows * down, along[1])
            ras = np.column_stack([lps * [-1, -1, 1], np.ones(len(lps))])
            voxels = ras @ np.linalg.inv(affine).T
            mask[tuple(np.rint(voxels[:, :3]).astype(int).T)] = True
        return mask


def stored(pacs: Orthanc, image_uid: str) -> dict[str, Stored]:
    """The segmentations of a series that the store holds, by SOP Instance UID."""
    found = {}
    for entry in requests.get(f"{pacs.url}/series?expand", timeout=LIMIT_S).json():
        if entry["MainDicomTags"]["Modality"] == "SEG":
            for instance in entry["Instances"]:
                body = requests.get(f"{pacs.url}/instances/{instance}/file", timeout=LIMIT_S).content
                item = Stored(pydicom.dcmread(io.BytesIO(body)))
                if item.image_uid == image_uid:
                    found[str(item.dataset.SOPInstanceUID)] = item
    return found


def newest(pacs: Orthanc, case: Case, before: dict[str, Stored]) -> Stored:
    """The segmentation of a series that was not among those of before."""
    (new,) = (item for uid, item in stored(pacs, case.series.series_uid).items() if uid not in before)
    return new
