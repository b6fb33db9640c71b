"""Finds the images and labels of a folder, watches it, and brings the record into line with them.

A label belongs to the image whose name it has. It lies in the folder of its tag (``labels/final/ct.nii.gz``,
``labels/final/ct.seg.nrrd``) or, as a final label, beside its image under a name that says what it is
(``ct_seg.nii.gz``, ``ct-label.nrrd``, ``ct_mask.png``, ``ct.seg.nrrd``; outlines also as ``slide.xml``).
A DICOM file of several frames is an image. A folder with a DICOM whole slide is one image; its type is the
rest of the path of its largest level.
Files that look like images or labels and are not used are named in the log once, with the reason.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import pydicom
from monailabel.datastore.local import DataModel, ImageLabelModel
from pydicom.errors import InvalidDicomError
from pydicom.uid import VLWholeSlideMicroscopyImageStorage
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

from lib.datastores.catalog import NO_PICTURES
from lib.datastores.record import FolderModel
from lib.errors import LabelError
from lib.images.file_formats import IMAGE_SUFFIXES
from lib.labels.polygons import require_polygons
from lib.labels.reading import LABEL_SUFFIXES

logger = logging.getLogger(__name__)

# Seconds without an event after which changes are reported; and the longest wait while events go on.
_QUIET_S, _LONGEST_S = 0.5, 2.0
_COME_OR_GONE = ("created", "deleted", "moved")

# Tag of the image itself, beside the tags of its labels.
IMAGE = ""
FINAL = "final"
# Outlines are labels: programs for slides put them beside the slide under its name.
_OUTLINES = (".xml", ".geojson")
# End of a file name, before its type, that says that it is the label of another file.
_LABEL_NAME = re.compile(r"[._ -](seg|segmentation|label|labels|labelmap|mask|gt)$", re.IGNORECASE)
# Slicer's segmentations, which are never images.
_SEGMENTATION = ".seg.nrrd"
# Voxels of a MetaImage header beside it: not a label of its own.
_VOXELS = (".raw", ".zraw")
# Keys that every file has in the record; others were said by a client.
_PLAIN = {"ts", "name"}


class FolderScanner:
    """Files of a datastore's folder.

    Args:
        record: Record, for the names of the folders of images and labels.
        patterns: Patterns of image names such as ``*.nii.gz``. Of two images that differ in type
            alone, the one of the earlier pattern is listed.
    """

    def __init__(self, record: FolderModel, patterns: Sequence[str]):
        self._patterns = [pattern.lower() for pattern in patterns]
        # Types of images in lower case, such as ``.nii.gz``.
        self.types = tuple(dict.fromkeys(pattern.rpartition("*")[2] for pattern in self._patterns))
        # A list of the user's own counts alone.
        self._lists_clips = {f"*{suffix}" for suffix in IMAGE_SUFFIXES} <= set(self._patterns)
        self._label_types = tuple(dict.fromkeys((*LABEL_SUFFIXES, *self.types)))
        base = Path(record.base_path).resolve()
        self._images, self._labels = base / record.images_dir, base / record.labels_dir
        self._named: set[str] = set()

    def to_id(self, name: str) -> tuple[str, str]:
        """Id and type of an image file; the type is the longest known one, as it is written."""
        return _split(name, self.types)

    def label_type(self, name: str) -> str:
        """Type of a label file, such as ``.seg.nrrd``."""
        types = (_SEGMENTATION, *self._label_types)
        return _split(name, types)[1]

    def place(self, tag: str, item_id: str, extension: str) -> Path:
        """The file to which an image (tag ``IMAGE``) or a label is written."""
        return (self._images if tag == IMAGE else self._labels / tag) / f"{item_id}{extension}"

    def path(self, tag: str, item_id: str, extension: str) -> Path:
        """The file that an image or a label is read from: a final label may lie beside its image.

        Args:
            tag: Tag of the label, or ``IMAGE``.
            item_id: Image id.
            extension: Rest of the file's name after the id, such as ``.nii.gz`` or ``_seg.nii.gz``.
        """
        own = self.place(tag, item_id, extension)
        beside = self._images / own.name
        may_be = tag == FINAL and self._may_lie_beside(extension)
        return beside if may_be and not own.exists() and beside.exists() else own

    def differs(self, record: FolderModel, paths: Iterable[Path]) -> bool:
        """Whether any of some files, which have appeared or vanished, contradicts the record."""
        known = {
            self.place(tag, item_id, data.ext)
            for item_id, item in record.objects.items()
            for tag, data in _files(item).items()
        }
        return any(self._differs(known, path) for path in paths)

    def reconcile(self, record: FolderModel) -> None:
        """Removes vanished files from the record and adds new ones.

        Args:
            record: Record; modified in place.
        """
        paths = [path for path in sorted(self._images.iterdir()) if not path.name.startswith(".")]
        images = [path.name for path in paths if self._matches(path)]
        stems = {self.to_id(name)[0] for name in images}
        for image_id, item in list(record.objects.items()):
            self._take_out(record, image_id, item, stems)
        for name in sorted(images, key=lambda name: (self._rank(name), name)):
            if not self._is_label_name(record, name, stems):
                self._add_image(record, *self.to_id(name))
        for folder in (path for path in paths if path.is_dir() and path != self._labels):
            if (slide := whole_slide_file(folder)) is not None:
                self._add_image(record, folder.name, f"/{slide.name}")
        for folder in sorted(path for path in self._labels.glob("*") if path.is_dir()):
            for path in sorted(folder.iterdir()):
                self._add_label(record, folder.name, path)
        for path in paths:
            if self._is_label_beside(record, path):
                self._add_label(record, FINAL, path)

    def forget(self, record: FolderModel, tag: str, item_id: str, extension: str) -> None:
        """Removes the information of a file that was deleted on purpose: another may take its name."""
        record.away.pop(_key(tag, f"{item_id}{extension}"), None)

    def _take_out(self, record: FolderModel, image_id: str, item: ImageLabelModel, stems: set[str]) -> None:
        files = _files(item)
        gone = {tag: data for tag, data in files.items() if not self.path(tag, image_id, data.ext).exists()}
        if IMAGE in gone or self._is_label_name(record, f"{image_id}{item.image.ext}", stems):
            gone = files
        for tag, data in gone.items():
            if data.info.keys() - _PLAIN:
                record.away[_key(tag, f"{image_id}{data.ext}")] = data
            item.labels.pop(tag, None)
        if IMAGE in gone:
            logger.info("Image %s is no longer in the folder", image_id)
            del record.objects[image_id]

    def _add_image(self, record: FolderModel, image_id: str, extension: str) -> None:
        name = f"{image_id}{extension}"
        known = record.objects.get(image_id)
        if known is None:
            logger.info("New image %s", image_id)
            if any(True for _ in _shortened(image_id)):
                logger.warning("%r is listed as an image: it is the label of no other image", name)
            data = _restored(record, IMAGE, self._images / name, extension)
            record.objects[image_id] = ImageLabelModel(image=data)
        elif known.image.ext != extension:
            self._leave_out(name, f"image {image_id}{known.image.ext} has the same name; rename one of them")

    def _add_label(self, record: FolderModel, tag: str, path: Path) -> None:
        name = path.name
        if name.startswith(".") or path.is_dir() or name.lower().endswith(_VOXELS):
            return
        shown = name if path.parent == self._images else f"{tag}/{name}"
        if not name.lower().endswith(self._label_types):
            self._leave_out(shown, f"not a type of label ({', '.join(LABEL_SUFFIXES)})")
            return
        found = self._image_of(record.objects, name)
        if found is None:
            self._leave_out(shown, "no image has its name; name it after its image, such as ct.nii.gz")
            return
        image_id, extension = found
        labels = record.objects[image_id].labels
        if tag not in labels:
            labels[tag] = _restored(record, tag, path, extension)
            logger.info("New label %s of image %s", shown, image_id)
        elif labels[tag].ext != extension:
            self._leave_out(shown, f"{image_id} has the label {image_id}{labels[tag].ext} for tag {tag!r}")

    def _image_of(self, images: Mapping[str, Any], name: str) -> tuple[str, str] | None:
        """Image id of a label file, and the rest of its name; the longest id that fits."""
        return next(((item, rest) for item, rest in self._possible_ids(name) if item in images), None)

    def _possible_ids(self, name: str) -> Iterator[tuple[str, str]]:
        stem, extension = _split(name, self._label_types)
        yield stem, extension
        for shorter in _shortened(stem):
            yield shorter, name[len(shorter) :]

    def _is_label_beside(self, record: FolderModel, path: Path) -> bool:
        """Whether a file among the images is the label of one of them."""
        lowered = path.name.lower()
        own, extension = self.to_id(path.name)
        known, found = record.objects.get(own), self._image_of(record.objects, path.name)
        if known is not None and known.image.ext == extension:
            return False
        if found is None or not self._may_lie_beside(found[1]):
            return lowered.endswith(_SEGMENTATION)
        if lowered.endswith(_OUTLINES):
            try:
                require_polygons(path)
            except LabelError as error:
                self._leave_out(path.name, str(error))
                return False
        return True

    def _may_lie_beside(self, rest: str) -> bool:
        """Whether a name is told from an image's by what follows the image id, such as ``_seg.nii.gz``."""
        stem, extension = _split(rest, self._label_types)
        return extension.lower() in _OUTLINES or "" in _shortened(stem)

    def _differs(self, known: set[Path], path: Path) -> bool:
        if self._labels in (path, path.parent):
            return True
        if path.name.startswith(".") or not path.name.lower().endswith(self._label_types):
            return False
        is_image = path.parent == self._images
        if not is_image and path.parent.parent != self._labels:
            return False
        is_known = path in known or (is_image and self._labels / FINAL / path.name in known)
        return is_known != path.exists()

    def _is_label_name(self, record: FolderModel, name: str, stems: set[str]) -> bool:
        """Whether a file is the label of another; not one on which labels were drawn already.

        Args:
            record: Record.
            name: File name.
            stems: Names of all image files, without their types.
        """
        lowered, own = name.lower(), self.to_id(name)[0]
        if lowered.endswith(_OUTLINES):
            return True
        known = record.objects.get(own)
        if known is not None and known.labels:
            return False
        return lowered.endswith(_SEGMENTATION) or any(stem in stems for stem in _shortened(own))

    def _matches(self, path: Path) -> bool:
        """Whether a file's name is that of an image, which somebody can ask for."""
        name = path.name
        is_listed = any(fnmatchcase(name.lower(), pattern) for pattern in self._patterns) or (
            self._lists_clips and is_clip(path)
        )
        if not is_listed or not path.exists():
            return False
        try:
            name.encode()
        except UnicodeEncodeError:
            self._leave_out(name, "its name is not UTF-8; rename it")
            return False
        return True

    def _rank(self, name: str) -> int:
        extension = self.to_id(name)[1].lower()
        return self.types.index(extension) if extension in self.types else len(self.types)

    def _leave_out(self, name: str, why: str) -> None:
        if name not in self._named:
            self._named.add(name)
            logger.warning("%r is not used: %s", name, why)


def new_data(name: str, extension: str, info: Mapping[str, Any] | None = None) -> DataModel:
    """Entry of the record for a new file.

    Args:
        name: File name.
        extension: Rest of the name after the image id.
        info: Information of a client.
    """
    return DataModel(info={**(info or {}), "ts": int(time.time()), "name": name}, ext=extension)


def _split(name: str, types: Sequence[str]) -> tuple[str, str]:
    known = [len(kind) for kind in types if name.lower().endswith(kind)]
    length = max(known) if known else len(Path(name).suffix)
    return name[: len(name) - length], name[len(name) - length :]


def _shortened(stem: str) -> Iterator[str]:
    """A name without its endings that mark a label, one after the other: ``ct_seg.label`` gives two names."""
    while match := _LABEL_NAME.search(stem):
        stem = stem[: match.start()]
        yield stem


def _files(item: ImageLabelModel) -> dict[str, DataModel]:
    return {IMAGE: item.image, **item.labels}


def _key(tag: str, name: str) -> str:
    return f"{tag}/{name}"


def _restored(record: FolderModel, tag: str, path: Path, extension: str) -> DataModel:
    """Entry for a file that has appeared, with its former information where it was missing for a while.

    A file that was written since has the time of that writing, so that scoring and training look again.
    """
    data = record.away.pop(_key(tag, path.name), None) or new_data(path.name, extension)
    written, known = path.stat().st_mtime, data.info.get("ts")
    if isinstance(known, int) and written > known + 1:
        data.info = {**data.info, "ts": int(written)}
    return data


_SUFFIX = ".dcm"
_TAGS = ["SOPClassUID", "ImageType", "TotalPixelMatrixColumns", "Modality", "NumberOfFrames"]
# Folders whose answers are kept.
_KEPT = 4096


def is_clip(path: Path) -> bool:
    """Whether a file is an image of several frames; other files are slices of a series."""
    try:
        return path.suffix.lower() == _SUFFIX and _has_frames(path, path.stat().st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=_KEPT)
def _has_frames(path: Path, changed: int) -> bool:
    header = _header(path)
    return (
        header is not None
        and header.get("Modality") not in NO_PICTURES
        and int(header.get("NumberOfFrames") or 1) > 1
    )


def whole_slide_file(folder: Path) -> Path | None:
    """The file of the largest level of the whole slide in a folder; None where it holds none."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() == _SUFFIX)
        return _largest(tuple(files), folder.stat().st_mtime_ns) if files else None
    except OSError:
        return None


@lru_cache(maxsize=_KEPT)
def _largest(files: tuple[Path, ...], changed: int) -> Path | None:
    """The file of the largest level.

    Args:
        files: DICOM files of the folder. Of other series only the first one is read.
        changed: Time of the folder's last change, so that it is read again afterwards.
    """
    best: tuple[int, Path] | None = None
    for path in files:
        columns = _volume_columns(path)
        if columns is None and best is None:
            return None
        if columns is not None and (best is None or columns > best[0]):
            best = columns, path
    return best[1] if best else None


def _volume_columns(path: Path) -> int | None:
    """Width of a level in pixels, 0 for labels and overviews; None for files of other kinds."""
    header = _header(path)
    if header is None or header.get("SOPClassUID") != VLWholeSlideMicroscopyImageStorage:
        return None
    is_volume = "VOLUME" in (header.get("ImageType") or [])
    return int(header.get("TotalPixelMatrixColumns") or 0) if is_volume else 0


def _header(path: Path) -> pydicom.Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError):
        return None


class FolderWatch(FileSystemEventHandler):
    """Calls a function from a thread of its own when files have appeared or vanished.

    Args:
        folder: Folder, watched with its sub-folders.
        read: File whose writes are reported as well.
        look: Function called with the files and folders that have appeared or vanished since the last call.
        polling: Whether the folder is listed every second: network disks send no events.
    """

    def __init__(self, folder: Path, read: Path, look: Callable[[set[Path]], None], polling: bool = False):
        self._read = read
        self._look = look
        self._news: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="folder-watch", daemon=True)
        self._observer = PollingObserver() if polling else Observer()
        self._observer.schedule(self, str(folder), recursive=True)
        self._observer.start()
        self._thread.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by the observer, in its thread."""
        paths = [Path(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path]
        if event.event_type in _COME_OR_GONE or (event.event_type == "modified" and self._read in paths):
            for path in paths:
                self._news.put(path)

    def stop(self) -> None:
        """Ends the watch; afterwards the function is not called any more."""
        self._observer.stop()
        self._observer.join()
        self._news.put(None)
        self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            news = self._next()
            ended = None in news
            try:
                self._look({path for path in news if path is not None})
            except Exception:
                # Such as a disk that is missing for a moment; the watch goes on.
                logger.exception("%d files have changed and cannot be read", len(news))

    def _next(self) -> set[Path | None]:
        news = {self._news.get()}
        latest = time.monotonic() + _LONGEST_S
        with suppress(queue.Empty):
            while None not in news and (left := latest - time.monotonic()) > 0:
                news.add(self._news.get(timeout=min(_QUIET_S, left)))
        return news
