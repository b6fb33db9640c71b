"""Series of a DICOMweb store as folders of files: a folder is whole or not there."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from dicomweb_client import DICOMwebClient
from monailabel.datastore.utils.dicom import dicom_web_download_series

from lib.datastores.catalog import ImageSeries, store_errors
from lib.errors import BusyError, ImageError
from lib.images.dicom import save_as_nifti

logger = logging.getLogger(__name__)


def download_series(
    client: DICOMwebClient, series: ImageSeries, folder: Path, fetch_by_frame: bool = False
) -> None:
    """Downloads a series into ``<folder>/<uid>``, in place of one that is incomplete.

    Args:
        client: of the store.
        series: which.
        folder: of all series.
        fetch_by_frame: whether headers and pixels are asked for apart, as MONAI Label can.

    Raises:
        BusyError: the store does not answer, or sent less than it has.
    """
    target = folder / series.uid
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
        part = Path(temporary) / series.uid
        with store_errors(client):
            dicom_web_download_series(series.study_uid, series.uid, str(part), client, fetch_by_frame)
        count = len(list(part.glob("*.dcm")))
        if not count or (series.instances is not None and count < series.instances):
            raise BusyError(
                f"the DICOM store at {client.base_url} sent {count} of the {series.instances} files of "
                f"series {series.uid}: try again"
            )
        if target.exists():
            shutil.move(target, Path(temporary) / "former")
        part.rename(target)


def is_complete(folder: Path, series: ImageSeries) -> bool:
    """Whether a series lies in its folder, as far as the store says how large it is."""
    count = len(list(folder.glob("*.dcm"))) if folder.is_dir() else 0
    return count > 0 and count >= (series.instances or 0)


def convert_series(folder: Path, path: Path, max_voxels: int) -> bool:
    """Writes the volume of a series as NIfTI, which every client can open.

    Args:
        folder: of the series.
        path: of the volume; replaced in one step.
        max_voxels: largest series that is opened.

    Returns:
        Whether there is one: colours, and series that are no even stack of slices, stay DICOM. Who opens
        those is told what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=path.parent) as temporary:
        part = Path(temporary) / path.name
        try:
            converted = save_as_nifti(folder, part, max_voxels)
        except ImageError as error:
            logger.warning("Series %s stays a folder of DICOM files: %s", folder.name, error)
            return False
        if converted:
            part.replace(path)
        return converted
