"""What a client may do with images and labels: each check says what is wrong, and changes nothing."""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

from fastapi import HTTPException, UploadFile
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.others.generic import file_checksum

from lib.datastores.labels import as_volume, open_label
from lib.datastores.local import LocalFolder
from lib.errors import ImageError, ImageTooLargeError
from lib.http import json_object, require_label_tag
from lib.images.cache import ImageCache
from lib.images.file_formats import split_ending
from lib.images.medical_image import MedicalImage
from lib.labels.polygons import require_polygons
from lib.pathology.opening import SLIDE_SUFFIXES, TIFF_SUFFIXES, open_slide

# Images are files of one folder, whose name is the id and the type. Hidden files are never listed.
_UNSAFE_ID = re.compile(r"[/\\\x00-\x1f]|^\.|^$")
# A name has at most 255 bytes, of which some are for its type and for what it is called while it is written.
_MOST_BYTES = 200
# Ways to sum up a file that MONAI Label's clients know; the first where they name none.
_SUMS = ("SHA256", "SHA512", "MD5")
_RAW = ".bin"


def plain_object(text: str, name: str) -> dict[str, Any]:
    """The JSON object of a form field, which everybody can be sent again: without NaN and infinities.

    Raises:
        HTTPException: 400, with the reason.
    """
    value = json_object(text, name)
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        _refuse(HTTPStatus.BAD_REQUEST, f"{name} holds NaN or an infinite number: leave it out, or send null")
    # 3D Slicer's params are params of their own.
    for said in (value, value.get("params")):
        if isinstance(said, dict) and not _are_classes(said.get("label_info") or []):
            example = '[{"name": "spleen", "idx": 1}], where each name is text'
            _refuse(HTTPStatus.BAD_REQUEST, f"label_info must be a list such as {example}")
    return value


def _are_classes(listed: Any) -> bool:
    return isinstance(listed, list) and all(
        isinstance(item, dict) and isinstance(item.get("name") or "", str) for item in listed
    )


@contextmanager
def received(upload: UploadFile) -> Iterator[tuple[str, Path]]:
    """What was sent as a temporary file of the same type.

    Yields:
        The file's name on the client's machine without its type, and the file.

    Raises:
        ImageError: nothing was sent.
    """
    name = PureWindowsPath(upload.filename or "").name
    stem, extension = split_ending(name)
    with tempfile.TemporaryDirectory(prefix="biosam2-upload-") as folder:
        path = Path(folder) / f"upload{extension.lower()}"
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file)
        if not path.stat().st_size:
            raise ImageError(f"{name or 'the file'} is empty (0 bytes): save or export it again")
        yield stem, path


def require_sum(file: Path, check_sum: str) -> None:
    """Lets a file pass that is the one that a client has.

    Args:
        file: to look at.
        check_sum: hexadecimal, such as ``SHA256:1f0a...``; without a way to sum up, SHA256 as well.

    Raises:
        HTTPException: 400 for another way to sum up, 404 for another file.
    """
    way, _, digest = check_sum.rpartition(":")
    way = way.upper() or _SUMS[0]
    if way not in _SUMS:
        _refuse(HTTPStatus.BAD_REQUEST, f"check_sum is of {way!r}; it can be of {', '.join(_SUMS)}")
    found = file_checksum(file, way)
    if found.lower() != f"{way}:{digest}".lower():
        _refuse(HTTPStatus.NOT_FOUND, f"the image here is another one: its check_sum is {found}")


class Checks:
    """Looks at requests before the datastore does.

    Args:
        datastore: of the app.
        images: opened ones.
    """

    def __init__(self, datastore: Datastore, images: ImageCache):
        self._datastore = datastore
        self._images = images

    def require_image(self, image_id: str) -> None:
        """Lets the id of an image pass.

        Raises:
            HTTPException: 400 for what can be no id, 404 for one that is not there.
            BusyError: the DICOM store does not answer.
        """
        if self._is_listed(image_id) or self._datastore.get_image_uri(image_id):
            return
        _refuse(
            HTTPStatus.NOT_FOUND,
            f"there is no image {image_id!r} in the datastore; /datastore/ lists the ids",
        )

    def image(self, image_id: str) -> MedicalImage:
        """Opens an image of the datastore.

        Raises:
            HTTPException: 400 or 404 for its id.
            ImageError: The image cannot be opened.
        """
        self.require_image(image_id)
        return self._images.get(Path(self._datastore.get_image_uri(image_id)))

    def require_label(self, label_id: str, tag: str) -> None:
        """Lets a label pass that is there.

        Raises:
            HTTPException: 400 for what can be no id or tag, 404 for one that is not there.
            BusyError: the DICOM store does not answer.
        """
        self._is_listed(label_id)
        require_label_tag(tag)
        if self._datastore.get_label_uri(label_id, tag):
            return
        known = sorted(self._datastore.get_labels_by_image_id(label_id))
        there = f"it has {', '.join(known)}" if known else "it has none"
        _refuse(HTTPStatus.NOT_FOUND, f"there is no label {tag!r} of {label_id!r}; {there}")

    def is_new_image(self, image_id: str, file: Path) -> bool:
        """Whether an image is to be added; not where the very file is there already.

        Raises:
            HTTPException: 400 for what can be no id, 409 where another image of this id has labels.
            ImageError: it cannot be opened, or the datastore would not list it.
        """
        _require_id(image_id)
        if isinstance(self._datastore, LocalFolder):
            _require_type(file, self._datastore.types)
        self._open(file)
        there = self._datastore.get_image_uri(image_id)
        if not there or not Path(there).is_file():
            return True
        if filecmp.cmp(there, file, shallow=False):
            return False
        if labels := self._datastore.get_labels_by_image_id(image_id):
            _refuse(
                HTTPStatus.CONFLICT,
                f"there is another image {image_id!r}, with the labels {', '.join(labels)}: send this one "
                "under another id, or remove that one first",
            )
        return True

    @contextmanager
    def usable_label(
        self, image_id: str, tag: str, file: Path, label_info: Sequence[Mapping[str, Any]] | None
    ) -> Iterator[Path]:
        """A label that a training can read, as it was sent; of raw bytes, a volume.

        Raises:
            HTTPException: 400 or 404 for the image or the tag.
            ImageError: the image cannot be opened.
            LabelError: the label cannot be read, is empty, or is none of this image.
        """
        self.require_image(image_id)
        require_label_tag(tag)
        uri = Path(self._datastore.get_image_uri(image_id))
        try:
            image = self._images.get(uri)
        except ImageError as error:
            # A slide is too large to be opened as a whole; what is drawn on it comes as outlines.
            if file.suffix != ".xml" or not _may_be_slide(uri, error):
                raise
            require_polygons(file)
            yield file
            return
        labels = open_label(file, image, label_info)
        with as_volume(labels, image) if file.suffix == _RAW else nullcontext(file) as usable:
            yield usable

    def _is_listed(self, item_id: str) -> bool:
        """Whether the datastore lists an id, whatever it looks like: other stores have other ids.

        Raises:
            HTTPException: 400 for one that is not listed and can be no file's name.
        """
        if item_id in self._datastore.list_images():
            return True
        _require_id(item_id)
        return False

    def _open(self, file: Path) -> None:
        """Opens an image, as a task would."""
        if file.suffix in SLIDE_SUFFIXES + TIFF_SUFFIXES:
            with closing(open_slide(file, self._images)):
                return
        self._images.get(file)


def _require_type(file: Path, types: Sequence[str]) -> None:
    """Refuses a type that the datastore forgets when it looks at its folder again."""
    if not any(file.name.endswith(known) for known in types):
        raise ImageError(
            f"a file of type {file.suffix or '(none)'} is not kept here, only {', '.join(types)}"
        )


def _may_be_slide(path: Path, error: ImageError) -> bool:
    return isinstance(error, ImageTooLargeError) or path.suffix.lower() in SLIDE_SUFFIXES + TIFF_SUFFIXES


def _require_id(item_id: str) -> None:
    if _UNSAFE_ID.search(item_id) or len(item_id.encode(errors="replace")) > _MOST_BYTES:
        _refuse(
            HTTPStatus.BAD_REQUEST,
            f"{item_id[:_MOST_BYTES]!r} can be no id: an id is the name of a file without its type, without "
            f"folders, of at most {_MOST_BYTES} bytes",
        )


def _refuse(status: HTTPStatus, reason: str) -> NoReturn:
    raise HTTPException(status, detail=reason)
