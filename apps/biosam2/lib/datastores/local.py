"""MONAI Label's datastore in a folder, with files that are whole or not there.

MONAI Label copies what a client sent over the file that is there: a server that is killed meanwhile leaves
half a label, which the next training cannot read. Here a file takes its place in one step.
"""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException

from lib.files import replacing

# Slides and pictures that MONAI Label's settings leave out.
_SLIDES = ("*.tiff", "*.ndpi", "*.mrxs", "*.scn", "*.bif", "*.vms", "*.vmu", "*.svslide", "*.jpeg")


def open_folder(path: str) -> LocalFolder:
    """The datastore in a folder, as MONAI Label's own settings want it."""
    return LocalFolder(
        path,
        extensions=[*dict.fromkeys([*settings.MONAI_LABEL_DATASTORE_FILE_EXT, *_SLIDES])],
        auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
    )


class LocalFolder(LocalDatastore):
    """Images and labels in a folder, and the record of them. Safe to use from several threads."""

    def __init__(self, *args: Any, **options: Any):
        # Held while the record is changed or gone through; always taken before the lock of the file.
        self._changing = threading.RLock()
        # By name: the next class of a DICOMweb store is another, which opens itself in its own way.
        LocalDatastore.__init__(self, *args, **options)

    def refresh(self) -> None:
        """Brings the record up to date with the folder; its watcher does so in another thread."""
        with self._changing:
            super().refresh()

    @property
    def types(self) -> list[str]:
        """Endings of the files that count as images."""
        return [pattern.removeprefix("*") for pattern in self._extensions]

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Adds an image, or puts another in its place; labels of the former one are forgotten.

        Args:
            image_id: of the image; the file's name without its type where it is empty.
            image_filename: the file, of which a copy is kept.
            image_info: of the client.
        """
        own_id, extension = self._to_id(Path(image_filename).name)
        image_id = image_id or own_id
        former = self._datastore.objects.get(image_id)
        folder = Path(self._datastore.image_path())
        with self._changing, FileLock(self._lock_file):
            data = self._keep(Path(image_filename), folder, image_id, extension, image_info)
            self._datastore.objects[image_id] = ImageLabelModel(image=data)
            self._update_datastore_file(lock=False)
            self._remove_former(folder, image_id, former.image if former else None, extension)
        return image_id

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Saves a label in place of the one that is there, of whatever type that is.

        Args:
            image_id: of an image.
            label_filename: the file, of which a copy is kept.
            label_tag: such as ``final``.
            label_info: of the client.

        Raises:
            ImageNotFoundException: there is no such image.
        """
        known = self._datastore.objects.get(image_id)
        if known is None:
            raise ImageNotFoundException(f"Image {image_id} not found")
        _, extension = self._to_id(Path(label_filename).name)
        folder = Path(self._datastore.label_path(label_tag))
        folder.mkdir(parents=True, exist_ok=True)
        with self._changing, FileLock(self._lock_file):
            data = self._keep(Path(label_filename), folder, image_id, extension, label_info)
            former = known.labels.get(label_tag)
            known.labels[label_tag] = data
            self._update_datastore_file(lock=False)
            self._remove_former(folder, image_id, former, extension)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Removes an image and its labels; the record knows at once, and not when the folder is looked at."""
        super().remove_image(image_id)
        self.refresh()

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Removes a label; the record knows at once."""
        super().remove_label(label_id, label_tag)
        self.refresh()

    def _keep(
        self, file: Path, folder: Path, item_id: str, extension: str, info: dict[str, Any]
    ) -> DataModel:
        """Copies a file to its place in one step; what the record says of it."""
        name = self._filename(item_id, extension)
        with replacing(folder / name) as temporary:
            shutil.copyfile(file, temporary)
        return DataModel(info={**(info or {}), "ts": int(time.time()), "name": name}, ext=extension)

    def _remove_former(self, folder: Path, item_id: str, former: DataModel | None, extension: str) -> None:
        """Removes a file of another type, which would come back in place of the new one when that goes."""
        if former is not None and former.ext != extension:
            (folder / self._filename(item_id, former.ext)).unlink(missing_ok=True)
