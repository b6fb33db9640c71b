"""Images of a DICOMweb store as MONAI Label's datastore shows them.

A series is downloaded when it is first asked for, completely or not at all. The cache folder has it as
``<uid>/*.dcm`` and, where it is a volume, as ``<uid>.nii.gz``.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dicomweb_client import DICOMwebClient
from monailabel.config import settings
from monailabel.datastore.local import DataModel, ImageLabelModel
from monailabel.datastore.utils.dicom import dicom_web_download_series
from monailabel.utils.others.generic import md5_digest

from lib.datastores.catalog import Contents, ImageSeries, StoreContents, store_errors
from lib.datastores.local import LocalFolder, image_path
from lib.datastores.record import FolderModel
from lib.datastores.scanner import FINAL
from lib.errors import BusyError, ImageError
from lib.files import alone, sweep, temporary_name
from lib.images.dicom import save_as_nifti
from lib.images.medical_image import MedicalImage
from lib.images.reading import read_image

logger = logging.getLogger(__name__)

VOLUME = ".nii.gz"
# MONAI Label's own place where the user named no other.
_HOME_CACHE = Path(".cache") / "monailabel" / "dicom"


class DicomWebImages(LocalFolder):
    """Images of a DICOMweb store and their state. Safe to use from several threads and processes.

    Args:
        client: DICOMweb client of the store; no request is sent yet.
        search_filter: QIDO filter of the images; empty for every series with images.
        cache: Folder for downloads, with a folder for each store; None for MONAI Label's own in the
            home folder.
        max_voxels: Largest image that is opened, in voxels.
        fetch_by_frame: Whether headers and frames are fetched separately.
        convert_to_nifti: Whether volumes are served as NIfTI instead of a folder of DICOM files.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        search_filter: Mapping[str, Any],
        cache: Path | None,
        max_voxels: int,
        fetch_by_frame: bool = False,
        convert_to_nifti: bool = True,
    ):
        self._client = client
        self._fetch_by_frame = fetch_by_frame
        self._convert_to_nifti = convert_to_nifti
        self._max_voxels = max_voxels
        folder = (cache or Path.home() / _HOME_CACHE) / md5_digest(client.base_url)
        self._folder = folder
        self._contents = StoreContents(client, search_filter, folder / "segmentations.json")
        super().__init__(str(folder))
        # The setting protects the store; its cache is always written.
        self.read_only = settings.MONAI_LABEL_DATASTORE_READ_ONLY
        sweep(folder)
        logger.info("DICOMweb store %s, downloads in %s", client.base_url, folder)

    @property
    def state(self) -> Hashable | None:
        """Equal as long as listing and cache are the same; None where the store has to be asked."""
        fresh = self._contents.fresh
        return (super().state, fresh) if fresh else None

    def name(self) -> str:
        """The store's address."""
        return str(self._client.base_url)

    def forget(self) -> None:
        """Makes the next request query the store, after something was stored there."""
        self._contents.forget()

    def list_images(self) -> list[str]:
        """Ids of all images.

        Raises:
            BusyError: The store does not answer.
        """
        return list(self._contents.now().images)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the images with a segmentation in the store.

        Raises:
            BusyError: The store does not answer.
        """
        contents = self._contents.now()
        return [uid for uid in contents.images if uid in contents.labels]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """Ids of the images without a segmentation in the store.

        Raises:
            BusyError: The store does not answer.
        """
        contents = self._contents.now()
        return [uid for uid in contents.images if uid not in contents.labels]

    def status(self) -> dict[str, Any]:
        """Counts for ``/info/``; those of the last listing if the store does not answer."""
        known = self._known()
        completed = sum(uid in known.labels for uid in known.images)
        tags: dict[str, int] = {FINAL: completed} if completed else {}
        for item in self._datastore.objects.values():
            for tag in item.labels:
                tags[tag] = tags.get(tag, 0) + (tag != FINAL)
        return {"total": len(known.images), "completed": completed, "label_tags": tags}

    def json(self) -> dict[str, Any]:
        """MONAI Label's record with all images of the store, downloaded or not."""
        record: dict[str, Any] = super().json()
        with contextlib.suppress(BusyError):
            for uid, image in self._contents.now().images.items():
                empty = {"image": {"ext": "", "info": dict(image.info)}, "labels": {}}
                record["objects"].setdefault(uid, empty)
        return record

    def get_image_uri(self, image_id: str) -> str:
        """The volume of an image, or its DICOM file or folder if it is no volume; downloaded if necessary.

        Returns:
            A path; empty if the store has no such image.

        Raises:
            BusyError: The store does not answer.
        """
        try:
            series = self._contents.find(image_id)
        except BusyError:
            if self._local_image(image_id) is None:
                raise
            logger.warning("The DICOM store does not answer: %s is taken from the cache", image_id)
            return str(self._local_image(image_id))
        if series is None:
            return ""
        if not is_complete(self._folder / series.uid, series) or self._local_image(image_id) is None:
            with self._alone(image_id):
                self._fetch(series)
        return str(self._local_image(image_id))

    def is_here(self, image_id: str) -> bool:
        """Whether an image is in the cache."""
        return self._local_image(image_id) is not None

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Information of an image, from the store and from MONAI Label's record."""
        own: dict[str, Any] = super().get_image_info(image_id)
        with contextlib.suppress(BusyError):
            series = self._contents.find(image_id)
            if series is not None:
                return {**series.info, **own, **({"path": str(self._local_image(image_id))} if own else {})}
        return own

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refuses: images are sent to the DICOM store.

        Raises:
            ImageError: Always.
        """
        raise ImageError(
            f"{Path(image_filename).name} cannot be added here: this server works on the DICOM store "
            f"{self._client.base_url}; send it there as DICOM"
        )

    def remove_image(self, image_id: str) -> None:
        """Refuses: images are deleted in the DICOM store.

        Raises:
            ImageError: Always.
        """
        raise ImageError(f"{image_id} cannot be removed here: remove it in {self._client.base_url}")

    def _known(self) -> Contents:
        """The store's contents; the last listing if the store does not answer."""
        try:
            return self._contents.now()
        except BusyError:
            return self._contents.last

    def _local_image(self, image_id: str) -> Path | None:
        """Path of an image in the cache; None if it is not there."""
        item = self._datastore.objects.get(image_id)
        if item is None:
            return None
        path = self._folder / f"{image_id}{item.image.ext}"
        if path.is_dir():
            files = list(path.glob("*.dcm"))
            path = files[0] if len(files) == 1 else path
        return path if path.exists() else None

    def _fetch(self, series: ImageSeries) -> None:
        folder, volume = self._folder / series.uid, self._folder / f"{series.uid}{VOLUME}"
        if not is_complete(folder, series):
            download_series(self._client, series, self._folder, self._fetch_by_frame)
            # These were made from fewer files.
            for former in (volume, self._scanner.place(FINAL, series.uid, VOLUME)):
                former.unlink(missing_ok=True)
        is_volume = self._convert_to_nifti and (
            volume.exists() or convert_series(folder, volume, self._max_voxels)
        )
        name = volume.name if is_volume else folder.name
        data = DataModel(info={**series.info, "name": name}, ext=VOLUME if is_volume else "")

        def add(record: FolderModel) -> None:
            known = record.objects.get(series.uid)
            kept = {**known.image.info, **data.info} if known else data.info
            labels = known.labels if known else {}
            record.objects[series.uid] = ImageLabelModel(
                image=DataModel(info=kept, ext=data.ext), labels=labels
            )

        self._record.change(add)

    def _alone(self, image_id: str) -> AbstractContextManager[None]:
        """Lock of an image's downloads, for all threads and processes."""
        return alone(self._folder / ".locks" / image_id)

    def _open(self, image_id: str) -> MedicalImage:
        return read_image(image_path(self, image_id), self._max_voxels)


def download_series(
    client: DICOMwebClient, series: ImageSeries, folder: Path, fetch_by_frame: bool = False
) -> None:
    """Downloads a series into ``<folder>/<uid>`` and replaces an incomplete one.

    Args:
        client: DICOMweb client of the store.
        series: Series to download.
        folder: Folder of all series.
        fetch_by_frame: Whether headers and frames are fetched separately.

    Raises:
        BusyError: The store does not answer, or sent fewer files than it has.
    """
    target = folder / series.uid
    with tempfile.TemporaryDirectory(prefix=temporary_name("download"), dir=folder) as temporary:
        part = Path(temporary) / series.uid
        with store_errors(client):
            if series.uid != series.series_uid:
                part.mkdir()
                file = client.retrieve_instance(series.study_uid, series.series_uid, series.uid)
                file.save_as(part / f"{series.uid}.dcm")
            else:
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
    """Whether a folder has all files of a series, as far as the store says how many there are."""
    count = len(list(folder.glob("*.dcm"))) if folder.is_dir() else 0
    return count > 0 and count >= (series.instances or 0)


def convert_series(folder: Path, path: Path, max_voxels: int) -> bool:
    """Writes the volume of a series as NIfTI, which every client can open.

    Args:
        folder: Folder of the series.
        path: File of the volume; replaced in one step.
        max_voxels: Largest series that is opened, in voxels.

    Returns:
        Whether the series is a volume. Colour images, and series that are no regular stack of slices, stay
        DICOM; opening them gives the reason.
    """
    with tempfile.TemporaryDirectory(prefix=temporary_name("convert"), dir=path.parent) as temporary:
        part = Path(temporary) / path.name
        try:
            converted = save_as_nifti(folder, part, max_voxels)
        except ImageError as error:
            logger.warning("Series %s stays a folder of DICOM files: %s", folder.name, error)
            return False
        if converted:
            part.replace(path)
        return converted
