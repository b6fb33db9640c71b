"""Which files of a folder are images and labels, and what the record says of them.

MONAI Label goes through the folder as well, but it empties the list of images for a moment, which others then
find empty; it takes a type out of the middle of a name; and what was said of a file that is away, such as the
names of a label's classes, it forgets for good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel

from lib.datastores.record import FolderModel

logger = logging.getLogger(__name__)

# In place of a label's tag: the image itself.
IMAGE = ""
# Outlines, which programs for slides put beside the slide under its name.
_OUTLINES = ".xml"
# What is known of a file of which nobody has said anything.
_PLAIN = {"ts", "name"}


class Folder:
    """The files of a datastore. Whoever changes the record through it holds the record's lock.

    Args:
        record: whose files they are.
        patterns: of the names of images and labels, such as ``*.nii.gz``. Of two images that differ in type
            alone, the one of the earlier pattern is listed.
    """

    def __init__(self, record: FolderModel, patterns: Sequence[str]):
        self._record = record
        self._patterns = [pattern.lower() for pattern in patterns]
        # Endings of the files that count, in lower case.
        self.types = tuple(dict.fromkeys(pattern.rpartition("*")[2] for pattern in self._patterns))
        base = Path(record.base_path).resolve()
        self._images, self._labels = base / record.images_dir, base / record.labels_dir
        self._refused: set[str] = set()

    def to_id(self, name: str) -> tuple[str, str]:
        """Id and type of a file: the longest type at its end, as it is written there, and what is before."""
        known = [len(kind) for kind in self.types if name.lower().endswith(kind)]
        length = max(known) if known else len(Path(name).suffix)
        return name[: len(name) - length], name[len(name) - length :]

    def path(self, tag: str, item_id: str, extension: str) -> Path:
        """The file of an image or, of that image, a label.

        Args:
            tag: of the label, or ``IMAGE``.
            item_id: of the image.
            extension: of the file.
        """
        return (self._images if tag == IMAGE else self._labels / tag) / f"{item_id}{extension}"

    def differs(self, paths: Iterable[Path]) -> bool:
        """Whether the record and the folder do not agree about one of some files that have come or gone."""
        return any(map(self._differs, paths))

    def reconcile(self) -> None:
        """Takes what has gone out of the record, and puts what has come into it."""
        record = self._record
        objects, away = dict(record.objects), dict(record.away)
        for image_id, item in record.objects.items():
            gone = self._gone(image_id, item)
            for tag, data in gone.items():
                if data.info.keys() - _PLAIN:
                    away[_key(tag, f"{image_id}{data.ext}")] = data
            if IMAGE in gone:
                logger.info("The image %s has gone", image_id)
                del objects[image_id]
            elif gone:
                item.labels = {tag: data for tag, data in item.labels.items() if tag not in gone}
        for name in self._listed(self._images):
            image_id, extension = self.to_id(name)
            if image_id not in objects:
                logger.info("The image %s has come", image_id)
                path = self.path(IMAGE, image_id, extension)
                objects[image_id] = ImageLabelModel(image=_taken(away, IMAGE, path, extension))
            elif (other := objects[image_id].image.ext) != extension:
                self._leave_out(name, f"the image {image_id}{other} has its name; rename one of them")
        for folder in sorted(path for path in self._labels.glob("*") if path.is_dir()):
            for name in self._listed(folder):
                image_id, extension = self.to_id(name)
                known = objects.get(image_id)
                if known is not None and folder.name not in known.labels:
                    data = _taken(away, folder.name, folder / name, extension)
                    known.labels = {**known.labels, folder.name: data}
        record.objects, record.away = objects, away

    def forget(self, tag: str, item_id: str, extension: str) -> None:
        """Forgets what was said of a file that was removed on purpose: another may take its place."""
        key = _key(tag, f"{item_id}{extension}")
        self._record.away = {name: data for name, data in self._record.away.items() if name != key}

    def _differs(self, path: Path) -> bool:
        if self._labels in (path, path.parent):
            return True
        if path.parent == self._images:
            tag = IMAGE
        elif path.parent.parent == self._labels:
            tag = path.parent.name
        else:
            return False
        item_id, extension = self.to_id(path.name)
        item = self._record.objects.get(item_id)
        known = _files(item).get(tag) if item else None
        is_known = known is not None and known.ext == extension
        return self._counts(path) and is_known != path.exists()

    def _gone(self, image_id: str, item: ImageLabelModel) -> dict[str, DataModel]:
        files = _files(item)
        gone = {tag: data for tag, data in files.items() if not self.path(tag, image_id, data.ext).exists()}
        return files if IMAGE in gone or item.image.ext.lower() == _OUTLINES else gone

    def _listed(self, folder: Path) -> list[str]:
        """Names of the files that count, those of earlier patterns first."""
        paths = [path for path in folder.iterdir() if self._counts(path) and path.exists()]
        return sorted((path.name for path in paths), key=lambda name: (self._place(name), name))

    def _place(self, name: str) -> int:
        return self.types.index(self.to_id(name)[1].lower())

    def _counts(self, path: Path) -> bool:
        name = path.name
        lowered = name.lower()
        if name.startswith(".") or not any(fnmatchcase(lowered, pattern) for pattern in self._patterns):
            return False
        if path.parent == self._images and lowered.endswith(_OUTLINES):
            return False
        try:
            name.encode()
        except UnicodeEncodeError:
            self._leave_out(name, "its name is not UTF-8; rename it")
            return False
        return True

    def _leave_out(self, name: str, why: str) -> None:
        if name not in self._refused:
            self._refused.add(name)
            logger.warning("%r is not listed: %s", name, why)


def new_data(name: str, extension: str, info: dict[str, Any] | None = None) -> DataModel:
    """What the record says of a file that has come.

    Args:
        name: of the file.
        extension: its end.
        info: what somebody said of it.
    """
    return DataModel(info={**(info or {}), "ts": int(time.time()), "name": name}, ext=extension)


def _files(item: ImageLabelModel) -> dict[str, DataModel]:
    return {IMAGE: item.image, **item.labels}


def _key(tag: str, name: str) -> str:
    return f"{tag}/{name}"


def _taken(away: dict[str, DataModel], tag: str, path: Path, extension: str) -> DataModel:
    """What was said of a file that is back, which is away no longer; of another, what is known of any.

    Where the file was written since, its time is that of the writing: what looked at it must look again.
    """
    data = away.pop(_key(tag, path.name), None) or new_data(path.name, extension)
    written, known = path.stat().st_mtime, data.info.get("ts")
    if isinstance(known, int) and written > known + 1:
        data.info = {**data.info, "ts": int(written)}
    return data
