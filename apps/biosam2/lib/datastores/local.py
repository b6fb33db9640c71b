"""MONAI Label's datastore in a folder. Files and record are complete at any moment, also after a crash.

MONAI Label copies an upload over the existing file, so that a server killed meanwhile leaves half a label.
Here each file is replaced in one step, and the record is changed under a lock that all processes share.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from monailabel.config import settings
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from lib.datastores.record import FolderModel, SharedRecord, plain_info
from lib.datastores.scanner import FINAL, IMAGE, FolderScanner, FolderWatch, new_data
from lib.errors import ConflictError, ImageNotFoundError, ReadOnlyError, SettingsError
from lib.files import alone, replacing, sweep
from lib.images.cache import file_stamp
from lib.images.file_formats import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

_FILE_TYPES = "MONAI_LABEL_DATASTORE_FILE_EXT"
_RECORD, _LOCK, _LABELS = "datastore_v2.json", ".lock", "labels"
# Lock file of whoever saves or removes a label.
_SAVING = ".saving.lock"


def open_folder(path: str) -> LocalFolder:
    """Opens the datastore in a folder by MONAI Label's own settings.

    Where the user chose no file types, every type that can be opened is listed, unlike MONAI Label's default.

    Raises:
        SettingsError: ``path`` is a file, or a folder that cannot be made or read.
    """
    patterns = list(settings.MONAI_LABEL_DATASTORE_FILE_EXT)
    if patterns == type(settings).model_fields[_FILE_TYPES].default:
        patterns = [*(f"*{suffix}" for suffix in IMAGE_SUFFIXES), *patterns]
    try:
        return LocalFolder(
            path,
            extensions=patterns,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )
    except (NotADirectoryError, FileExistsError) as error:
        raise SettingsError(
            f"--studies {path}: this is a file; give its folder, or the address of a DICOMweb store"
        ) from error
    except OSError as error:
        raise SettingsError(f"--studies {path}: the folder cannot be opened: {error.strerror}") from error


def image_path(datastore: Datastore, image_id: str) -> Path:
    """The file or folder of an image; only the datastore knows which one an id means.

    Args:
        datastore: Any datastore of MONAI Label.
        image_id: Image id.

    Raises:
        ImageNotFoundError: There is no such image.
        BusyError: The DICOM store does not answer.
    """
    uri = datastore.get_image_uri(image_id)
    if not uri:
        raise ImageNotFoundError(
            f"there is no image {image_id[:200]!r} in the datastore; /datastore/ lists the ids"
        )
    return Path(uri)


def folder_of(datastore: Datastore) -> Path:
    """The folder of a datastore; of a DICOMweb store its cache."""
    return Path(getattr(datastore, "_datastore_path", None) or datastore.name())


class SavedLabel(NamedTuple):
    """A label that was saved.

    Attributes:
        label_id: Id of the label.
        version: Text that differs from that of any label saved before or after it.
    """

    label_id: str
    version: str


def label_version(datastore: Datastore, image_id: str, tag: str) -> str:
    """Version of a label: text that changes whenever anybody saves the label; empty where there is none.

    Datastores of other kinds than this app's have no versions: it is empty there.
    """
    return datastore.label_version(image_id, tag) if isinstance(datastore, LocalFolder) else ""


def replace_label(
    datastore: Datastore,
    image_id: str,
    file: Path,
    tag: str,
    info: Mapping[str, Any],
    replaces: str | None = None,
) -> SavedLabel:
    """Saves a label in place of a version of it; the check and the change are one step for all writers.

    Args:
        datastore: Datastore of the image.
        image_id: Id of the image.
        file: File, which is copied.
        tag: Tag such as ``final``.
        info: Information of the client.
        replaces: Version that the new label was made from, empty for none. None saves in any case.

    Raises:
        ConflictError: The stored label is another version.
    """
    if isinstance(datastore, LocalFolder):
        return datastore.replace_label(image_id, file, tag, dict(info), replaces)
    return SavedLabel(str(datastore.save_label(image_id, str(file), tag, dict(info))), "")


class LocalFolder(LocalDatastore):
    """Images and labels in a folder. Safe to use from several threads and processes.

    Args:
        datastore_path: Folder; made where it is missing.
        extensions: Patterns of image names.
        auto_reload: Whether files that other programs add or remove are noticed.
        read_only: Whether nothing is written. A folder that cannot be written is read-only by itself.
    """

    def __init__(
        self,
        datastore_path: str,
        *,
        extensions: tuple[str, ...] | list[str] = ("*.nii.gz", "*.nii"),
        auto_reload: bool = False,
        read_only: bool = False,
    ):
        # MONAI Label's constructor writes into the folder whatever its settings say, so it is not called.
        logging.getLogger("filelock").setLevel(logging.ERROR)
        self._datastore_path = datastore_path
        folder = Path(datastore_path)
        if not folder.is_dir():
            folder.mkdir(parents=True)
        self.read_only = read_only or not os.access(folder, os.W_OK)
        empty = LocalDatastoreModel(
            name="new-dataset", description="New Dataset", images_dir=".", labels_dir=_LABELS
        )
        empty.base_path = datastore_path
        self._record_file = folder / _RECORD
        self._record = SharedRecord(self._record_file, folder / _LOCK, empty, not self.read_only)
        self._scanner = FolderScanner(self._record.content, extensions)
        if self.read_only:
            logger.warning("%s is read-only: images are shown and segmented, and nothing is saved", folder)
        else:
            self._make_folders()
        # Watched before it is scanned, so that no file is missed in between.
        self._watch = self._start_watch() if auto_reload else None
        self.refresh()

    @property
    def _datastore(self) -> FolderModel:
        """The record as MONAI Label's own methods read it, with what other processes wrote until now."""
        # Where the file is missing, the snapshot stays.
        with suppress(FileNotFoundError):
            if file_stamp(self._record_file) != self._record.stamp:
                self._record.read()
        return self._record.content

    def close(self) -> None:
        """Ends the watch of the folder."""
        if self._watch is not None:
            self._watch.stop()

    @property
    def types(self) -> tuple[str, ...]:
        """Types of the files that count as images, in lower case."""
        return self._scanner.types

    @property
    def state(self) -> Hashable | None:
        """Equal as long as the datastore says the same of its images and labels; None where it has to ask."""
        return self._record.state

    def require_writable(self) -> None:
        """Refuses to go on where nothing can be saved.

        Raises:
            ReadOnlyError: The studies are read-only.
        """
        if self.read_only:
            raise ReadOnlyError(
                "this server's studies are read-only: nothing was saved; images can be viewed and segmented"
            )

    def get_image_uri(self, image_id: str) -> str:
        """The file of an image, empty where there is none; an id may be percent-encoded."""
        return str(super().get_image_uri(self._listed_id(image_id)))

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The file of a label, as MONAI Label wants it: empty where there is none."""
        data = self._datastore.label(label_id, _plain(label_tag))
        return str(self._scanner.path(_plain(label_tag), label_id, data.ext).resolve()) if data else ""

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Paths of the images with a final label, and of the label: ``{"image": ..., "label": ...}``."""
        found = [
            {"image": self.get_image_uri(image_id), "label": self.get_label_uri(image_id, FINAL)}
            for image_id in self._datastore.filter_by_tag(FINAL)
        ]
        if full_path:
            return found
        base = Path(self._datastore_path).resolve()
        return [{key: os.path.relpath(path, base) for key, path in pair.items()} for pair in found]

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Adds an image, or replaces one; labels of the former one are forgotten.

        Args:
            image_id: Id; empty for the file's name without its type.
            image_filename: File, which is copied.
            image_info: Information of the client.

        Raises:
            ReadOnlyError: The studies are read-only.
            OSError: The disk is full.
        """
        self.require_writable()
        own_id, extension = self._to_id(Path(image_filename).name)
        image_id, info = image_id or own_id, plain_info(image_info)

        def add(record: FolderModel) -> None:
            former = record.objects.get(image_id)
            data = new_data(f"{image_id}{extension}", extension, info)
            self._keep(Path(image_filename), IMAGE, image_id, data, former.image if former else None, files)
            record.objects[image_id] = ImageLabelModel(image=data)

        files = ExitStack()
        self._record.change(add, files)
        return image_id

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Saves a label in place of the former one, whatever its type.

        Args:
            image_id: Id of the image.
            label_filename: File, which is copied.
            label_tag: Tag such as ``final``.
            label_info: Information of the client.

        Raises:
            ImageNotFoundException: There is no such image.
            ReadOnlyError: The studies are read-only.
            OSError: The disk is full.
        """
        return self.replace_label(image_id, Path(label_filename), _plain(label_tag), label_info).label_id

    def replace_label(
        self, image_id: str, file: Path, tag: str, info: dict[str, Any], replaces: str | None = None
    ) -> SavedLabel:
        """``save_label``, where the stored label is still the version that the new one was made from.

        Raises:
            ConflictError: It is another version than ``replaces``.
        """
        self.require_writable()
        image_id = self._listed_id(image_id)
        with self._saving(image_id):
            self._require_version(image_id, tag, replaces)
            self._save_label(image_id, file, tag, info)
            return SavedLabel(image_id, self.label_version(image_id, tag))

    def label_version(self, image_id: str, tag: str) -> str:
        """Text that changes whenever the label is saved; empty where there is none."""
        with suppress(FileNotFoundError):
            uri = self.get_label_uri(image_id, tag)
            return file_stamp(Path(uri)) if uri else ""
        return ""

    def _saving(self, image_id: str) -> AbstractContextManager[None]:
        """Lock of an image's labels, for all threads and processes that save or remove one."""
        return alone(Path(self._datastore_path) / _SAVING)

    def _require_version(self, image_id: str, tag: str, replaces: str | None) -> None:
        version = self.label_version(image_id, tag)
        if replaces is None or replaces == version:
            return
        info = self.get_label_info(image_id, tag) or {}
        author = info.get("client_id") or info.get("user")
        by = f" by {author}" if author else ""
        raise ConflictError(
            f"The stored label of this image was saved{by} after yours was loaded. Load it to go on from it, "
            "or save yours as a newer version"
            if version
            else "The label that yours was made from has been removed since. Save yours as a new one"
        )

    def _save_label(self, image_id: str, file: Path, tag: str, label_info: dict[str, Any]) -> None:
        info, extension = plain_info(label_info), self._scanner.label_type(file.name)

        def save(record: FolderModel) -> None:
            item = _image(record, image_id)
            data = new_data(f"{image_id}{extension}", extension, info)
            self._keep(file, tag, image_id, data, item.labels.get(tag), files)
            item.labels[tag] = data

        files = ExitStack()
        self._record.change(save, files)

    def remove_image(self, image_id: str) -> None:
        """Deletes an image, its labels and their information.

        Raises:
            ImageNotFoundException: There is no such image.
            ReadOnlyError: The studies are read-only.
        """
        item = _image(self._datastore, image_id)
        self._remove(image_id, {**item.labels, IMAGE: item.image})

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Deletes a label and its information.

        Raises:
            ReadOnlyError: The studies are read-only.
        """
        tag = _plain(label_tag)
        data = self._datastore.label(label_id, tag)
        with self._saving(label_id):
            self._remove(label_id, {tag: data} if data is not None else {})

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Adds to the information of an image; of read-only studies it is kept until the server stops.

        Raises:
            ImageNotFoundException: There is no such image.
            InfoError: It cannot be saved as JSON.
        """
        told = plain_info(info)
        self._record.change(lambda record: _image(record, image_id).image.info.update(told))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Adds to the information of a label; of read-only studies it is kept until the server stops.

        Raises:
            LabelNotFoundException: There is no such label.
            InfoError: It cannot be saved as JSON.
        """
        told, tag = plain_info(info), _plain(label_tag)

        def update(record: FolderModel) -> None:
            data = record.label(label_id, tag)
            if data is None:
                raise LabelNotFoundException(f"Label {label_id} with tag {tag} not found")
            data.info.update(told)

        self._record.change(update)

    def set_name(self, name: str) -> None:
        """Names the datastore."""
        self._record.change(lambda record: setattr(record, "name", name))

    def set_description(self, description: str) -> None:
        """Describes the datastore."""
        self._record.change(lambda record: setattr(record, "description", description))

    def _listed_id(self, image_id: str) -> str:
        """The id as it is listed: QuPath sends the name of ``My Slide`` as ``My%20Slide``."""
        decoded = unquote(image_id)
        objects = self._datastore.objects
        return decoded if image_id not in objects and decoded in objects else image_id

    def _remove(self, item_id: str, files: Mapping[str, DataModel]) -> None:
        """Deletes files of an image, by tag, and their information."""
        self.require_writable()

        def remove(record: FolderModel) -> None:
            for tag, data in files.items():
                self._scanner.path(tag, item_id, data.ext).unlink(missing_ok=True)
            self._scanner.reconcile(record)
            for tag, data in files.items():
                self._scanner.forget(record, tag, item_id, data.ext)

        self._record.change(remove)

    def _keep(
        self,
        file: Path,
        tag: str,
        item_id: str,
        data: DataModel,
        former: DataModel | None,
        files: ExitStack,
    ) -> None:
        """Copies a file, which takes its place, and that of one of another type, when ``files`` is closed."""
        path = self._scanner.place(tag, item_id, data.ext)
        if former is not None and former.ext != data.ext:
            # It would come back when the new one is deleted.
            other = self._scanner.place(tag, item_id, former.ext)
            files.push(lambda failed, *_: other.unlink(missing_ok=True) if failed is None else None)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, files.enter_context(replacing(path)))

    def _make_folders(self) -> None:
        """Makes the folders of labels, and deletes files that killed processes left half written."""
        labels = Path(self._datastore.label_path(None))
        for tag in (DefaultLabelTag.FINAL, DefaultLabelTag.ORIGINAL):
            (labels / _plain(tag)).mkdir(parents=True, exist_ok=True)
        for folder in (Path(self._datastore_path), *labels.iterdir()):
            sweep(folder)

    def _start_watch(self) -> FolderWatch | None:
        folder, record = (
            Path(self._datastore_path).resolve(),
            (Path(self._datastore_path) / _RECORD).resolve(),
        )
        try:
            return FolderWatch(folder, record, self._look, polling=self._is_on_mount(str(folder)))
        except OSError as error:
            logger.error("Files that are added to %s are noticed after a restart only: %s", folder, error)
            return None

    def _look(self, paths: set[Path]) -> None:
        """Takes over what other processes and programs did to the record and to some files."""
        self._record.read()
        if self._scanner.differs(self._datastore, paths):
            self._record.change(lambda record: self._reconcile(record, paths))

    def _reconcile(self, record: FolderModel, paths: set[Path]) -> None:
        # Asked again under the lock: while a label is saved, its file is there before its entry.
        if self._scanner.differs(record, paths):
            self._scanner.reconcile(record)

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        self._record.read()

    def _update_datastore_file(self, lock: bool = True) -> None:
        raise NotImplementedError("the record is changed by SharedRecord.change alone")

    def _reconcile_datastore(self) -> None:
        self._record.change(self._scanner.reconcile)

    def _to_id(self, file: str) -> tuple[str, str]:
        return self._scanner.to_id(file)


def _image(record: LocalDatastoreModel, image_id: str) -> ImageLabelModel:
    item = record.objects.get(image_id)
    if item is None:
        raise ImageNotFoundException(f"Image {image_id} not found")
    return item


def _plain(tag: str) -> str:
    """The name of a tag: MONAI Label's own are members of an enumeration."""
    return str(tag.value) if isinstance(tag, DefaultLabelTag) else tag
