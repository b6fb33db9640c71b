"""MONAI Label's datastore in a folder, with files and a record that are whole at any moment.

MONAI Label copies what a client sent over the file that is there: a server that is killed meanwhile leaves
half a label, which the next training cannot read. Here a file takes its place in one step.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.utils.others.generic import remove_file

from lib.datastores.record import FolderModel, SharedRecord
from lib.datastores.scanner import IMAGE, Folder, new_data
from lib.datastores.watcher import FolderWatch
from lib.files import replacing
from lib.images.reading import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

_FILE_TYPES = "MONAI_LABEL_DATASTORE_FILE_EXT"


def open_folder(path: str) -> LocalFolder:
    """The datastore in a folder, as MONAI Label's own settings want it.

    Where nobody chose the files that count, all that can be opened do: MONAI Label's own list is shorter.
    """
    patterns = list(settings.MONAI_LABEL_DATASTORE_FILE_EXT)
    if patterns == type(settings).model_fields[_FILE_TYPES].default:
        patterns = [*(f"*{suffix}" for suffix in IMAGE_SUFFIXES), *patterns]
    return LocalFolder(
        path,
        extensions=patterns,
        auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
    )


class LocalFolder(LocalDatastore):
    """Images and labels in a folder, and the record of them. Safe to use from several threads and processes.

    Args:
        datastore_path: the folder; made where there is none.
        auto_reload: whether files that others put there, or take away, are noticed.
        read_only: whether the record stays as it is while the datastore is opened.
        options: others of MONAI Label's.
    """

    _datastore: FolderModel
    _record: SharedRecord
    _listing: Folder

    def __init__(
        self, datastore_path: str, *, auto_reload: bool = False, read_only: bool = False, **options: Any
    ):
        super().__init__(datastore_path, auto_reload=False, read_only=True, **options)
        # Watched first, so that no file comes unseen in between.
        self._watch = self._start_watch() if auto_reload else None
        if not read_only:
            self.refresh()

    def write_by(self, thread: Executor) -> None:
        """Has one thread do all that is done under the record's lock, for which other processes wait.

        Args:
            thread: one that others do not always come before.
        """
        self._record.urgent = thread

    def close(self) -> None:
        """Ends the watch of the folder."""
        if self._watch is not None:
            self._watch.stop()

    @property
    def types(self) -> tuple[str, ...]:
        """Endings of the files that count as images, in lower case."""
        return self._listing.types

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Adds an image, or puts another in its place; labels of the former one are forgotten.

        Args:
            image_id: of the image; the file's name without its type where it is empty.
            image_filename: the file, of which a copy is kept.
            image_info: of the client.
        """
        own_id, extension = self._to_id(Path(image_filename).name)
        image_id = image_id or own_id
        with FileLock(self._lock_file):
            former = self._datastore.objects.get(image_id)
            data = self._keep(Path(image_filename), IMAGE, image_id, extension, image_info)
            self._datastore.objects = {**self._datastore.objects, image_id: ImageLabelModel(image=data)}
            self._update_datastore_file(lock=False)
            self._remove_former(IMAGE, image_id, former.image if former else None, extension)
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
        tag = _plain(label_tag)
        _, extension = self._to_id(Path(label_filename).name)
        with FileLock(self._lock_file):
            item = self._datastore.objects.get(image_id)
            if item is None:
                raise ImageNotFoundException(f"Image {image_id} not found")
            data = self._keep(Path(label_filename), tag, image_id, extension, label_info)
            former = item.labels.get(tag)
            item.labels = {**item.labels, tag: data}
            self._update_datastore_file(lock=False)
            self._remove_former(tag, image_id, former, extension)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Removes an image and its labels, and what was said of them.

        Raises:
            ImageNotFoundException: there is no such image.
        """
        item = self._datastore.objects.get(image_id)
        if item is None:
            raise ImageNotFoundException(f"Image {image_id} not found")
        self._remove(image_id, {**item.labels, IMAGE: item.image})

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Removes a label, and what was said of it."""
        tag = _plain(label_tag)
        data = self._datastore.label(label_id, tag)
        self._remove(label_id, {tag: data} if data is not None else {})

    def _remove(self, item_id: str, files: Mapping[str, DataModel]) -> None:
        """Removes files of an image, by tag, and what was said of them; the record is written once."""
        for tag, data in files.items():
            remove_file(str(self._listing.path(tag, item_id, data.ext).resolve()))

        def settle() -> None:
            self._listing.reconcile()
            for tag, data in files.items():
                self._listing.forget(tag, item_id, data.ext)

        self._record.change(settle)

    def _keep(self, file: Path, tag: str, item_id: str, extension: str, info: dict[str, Any]) -> DataModel:
        """Copies a file to its place in one step; what the record says of it."""
        path = self._listing.path(tag, item_id, extension)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            shutil.copyfile(file, temporary)
        return new_data(path.name, extension, info)

    def _remove_former(self, tag: str, item_id: str, former: DataModel | None, extension: str) -> None:
        """Removes a file of another type, which would come back in place of the new one when that goes."""
        if former is not None and former.ext != extension:
            self._listing.path(tag, item_id, former.ext).unlink(missing_ok=True)

    def _start_watch(self) -> FolderWatch | None:
        folder, record = Path(self._datastore_path).resolve(), Path(self._datastore_config_path).resolve()
        try:
            return FolderWatch(folder, record, self._look, polling=self._is_on_mount(str(folder)))
        except OSError as error:
            logger.error("Files that come into %s are seen after a restart only: %s", folder, error)
            return None

    def _look(self, paths: set[Path]) -> None:
        """Other processes write the record as well, and this one's own files come and go."""
        self._record.read()
        if self._listing.differs(paths):
            # Asked again under the lock: a file that is just being saved is there before the record says so.
            self._record.change(lambda: self._listing.reconcile() if self._listing.differs(paths) else None)

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """MONAI Label's own name; it throws while it opens the folder."""
        if throw_exception:
            path, lock_file = Path(self._datastore_config_path), Path(self._lock_file)
            self._record = SharedRecord(path, lock_file, self._datastore)
            self._datastore = self._record.content
            self._listing = Folder(self._datastore, self._extensions)
        self._record.read()

    def _update_datastore_file(self, lock: bool = True) -> None:
        self._record.write(locked=not lock)

    def _reconcile_datastore(self) -> None:
        self._record.change(self._listing.reconcile)

    def _to_id(self, file: str) -> tuple[str, str]:
        return self._listing.to_id(file)


def _plain(tag: str) -> str:
    """MONAI Label's own tags are members of an enumeration, after which no folder is to be named."""
    return str(tag.value) if isinstance(tag, DefaultLabelTag) else tag
