"""Checks of requests to the datastore, before anything changes; each says what is wrong."""

from __future__ import annotations

import filecmp
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path, PureWindowsPath
from typing import Any

from fastapi import UploadFile
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.others.generic import file_checksum

from lib.datastores.labels import as_volume, open_label
from lib.datastores.local import LocalFolder
from lib.errors import ImageError, ImageTooLargeError
from lib.images.cache import ImageCache
from lib.images.file_formats import split_ending
from lib.images.medical_image import MedicalImage
from lib.labels.polygons import require_polygons
from lib.pathology.opening import is_slide_file, open_slide
from lib.server.error_responses import refuse
from lib.server.json_input import json_object

# Images are files of one folder, whose name is the id and the type. Hidden files are never listed.
_UNSAFE_ID = re.compile(r"[/\\\x00-\x1f]|^\.|^$")
# A name has at most 255 bytes, of which some are for its type and for what it is called while it is written.
_MOST_BYTES = 200
# Digests that MONAI Label's clients know; the first where they name none.
_ALGORITHMS = ("SHA256", "SHA512", "MD5")
_RAW = ".bin"
_LABEL_TAG = re.compile(r"[\w-]{1,64}")
# A file's type, such as .nii.gz or .seg.nrrd.
_ENDING = re.compile(r"(\.[\w-]{1,16}){0,3}")


def label_object(text: str, name: str) -> dict[str, Any]:
    """The JSON object of a form field about a label or image, with a usable ``label_info``.

    Args:
        text: JSON text.
        name: name of the field, for the error message.

    Raises:
        HTTPException: 400, with the reason.
    """
    value = json_object(text, name)
    # 3D Slicer's params are params of their own.
    for part in (value, value.get("params")):
        if isinstance(part, dict) and not _are_classes(part.get("label_info") or []):
            example = '[{"name": "spleen", "idx": 1}], where each name is text'
            refuse(HTTPStatus.BAD_REQUEST, f"label_info must be a list such as {example}")
    return value


def require_label_tag(tag: Any) -> None:
    """Lets the tag of a label pass, such as ``final``: MONAI Label makes a folder of that name.

    Raises:
        HTTPException: 400 for anything but a short name.
    """
    if not (isinstance(tag, str) and _LABEL_TAG.fullmatch(tag)):
        reason = f"the label's tag is {str(tag)[:100]!r}; it must have 1 to 64 letters, digits, _ or -"
        refuse(HTTPStatus.BAD_REQUEST, reason)


def _are_classes(listed: Any) -> bool:
    return isinstance(listed, list) and all(
        isinstance(item, dict) and isinstance(item.get("name") or "", str) for item in listed
    )


@contextmanager
def received(upload: UploadFile) -> Iterator[tuple[str, Path]]:
    """An uploaded file as a temporary file of the same type.

    Args:
        upload: File of the request.

    Yields:
        The file's name on the client's machine without its type, and the temporary file.

    Raises:
        ImageError: The file is empty, or its name has an unusable type.
    """
    name = PureWindowsPath(upload.filename or "").name
    stem, extension = split_ending(name)
    if not _ENDING.fullmatch(extension):
        raise ImageError(
            f"Unsupported file type {extension[:40]!r}: rename the file, for example to image.nii.gz"
        )
    with tempfile.TemporaryDirectory(prefix="biosam2-upload-") as folder:
        path = Path(folder) / f"upload{extension.lower()}"
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file)
        if not path.stat().st_size:
            raise ImageError(f"{name or 'the file'} is empty (0 bytes): save or export it again")
        yield stem, path


def require_sum(file: Path, check_sum: str) -> None:
    """Lets a file pass that is the same as the client's.

    Args:
        file: File to compare.
        check_sum: Hexadecimal digest, such as ``SHA256:1f0a...``; SHA256 where no algorithm is named.

    Raises:
        HTTPException: 400 for an unknown algorithm, 404 for another digest.
    """
    algorithm, _, digest = check_sum.rpartition(":")
    algorithm = algorithm.upper() or _ALGORITHMS[0]
    if algorithm not in _ALGORITHMS:
        known = ", ".join(_ALGORITHMS)
        refuse(HTTPStatus.BAD_REQUEST, f"Unknown algorithm {algorithm!r} of check_sum (available: {known})")
    found = file_checksum(file, algorithm)
    if found.lower() != f"{algorithm}:{digest}".lower():
        refuse(HTTPStatus.NOT_FOUND, f"the image of this id is another one: its check_sum is {found}")


class Checks:
    """Checks of ids, images and labels against a datastore.

    Args:
        datastore: Datastore of the app.
        images: Cache of opened images.
    """

    def __init__(self, datastore: Datastore, images: ImageCache):
        self._datastore = datastore
        self._images = images

    def require_image(self, image_id: str) -> None:
        """Lets the id of an existing image pass.

        Raises:
            HTTPException: 400 for a malformed id, 404 for an unknown one.
            BusyError: The DICOM store does not answer.
        """
        if self._is_listed(image_id) or self._datastore.get_image_uri(image_id):
            return
        refuse(
            HTTPStatus.NOT_FOUND,
            f"there is no image {image_id!r} in the datastore; /datastore/ lists the ids",
        )

    def require_readable(self, file: Path) -> None:
        """Lets a slide pass whose pixels can be read; other files are not opened.

        QuPath asks before each request, and sends the pixels of a slide that the server does not have.

        Raises:
            HTTPException: 404, with the reason.
        """
        if not is_slide_file(file):
            return
        try:
            self._open(file)
        except ImageError as error:
            refuse(HTTPStatus.NOT_FOUND, str(error))

    def image(self, image_id: str) -> MedicalImage:
        """Opens an image of the datastore.

        Raises:
            HTTPException: 400 or 404 for its id.
            ImageError: The image cannot be opened.
        """
        self.require_image(image_id)
        return self._images.get(Path(self._datastore.get_image_uri(image_id)))

    def require_label(self, label_id: str, tag: str) -> None:
        """Lets an existing label pass.

        Raises:
            HTTPException: 400 for a malformed id or tag, 404 for an unknown one.
            BusyError: The DICOM store does not answer.
        """
        self._is_listed(label_id)
        require_label_tag(tag)
        if self._datastore.get_label_uri(label_id, tag):
            return
        known = sorted(self._datastore.get_labels_by_image_id(label_id))
        there = f"it has {', '.join(known)}" if known else "it has none"
        refuse(HTTPStatus.NOT_FOUND, f"there is no label {tag!r} of {label_id!r}; {there}")

    def is_new_image(self, image_id: str, file: Path) -> bool:
        """Whether an image has to be added; False where the same file is there already.

        Raises:
            HTTPException: 400 for a malformed id, 409 where another image of this id has labels.
            ImageError: The file cannot be opened, or the datastore would not list it.
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
            refuse(
                HTTPStatus.CONFLICT,
                f"there is another image {image_id!r}, with the labels {', '.join(labels)}: send this one "
                "under another id, or remove that one first",
            )
        return True

    @contextmanager
    def usable_label(
        self, image_id: str, tag: str, file: Path, label_info: Sequence[Mapping[str, Any]] | None
    ) -> Iterator[Path]:
        """A label that a training can read: the file as it was sent, or a volume made from raw bytes.

        Raises:
            HTTPException: 400 or 404 for the image or the tag.
            ImageError: The image cannot be opened.
            LabelError: The label cannot be read, is empty, or does not fit the image.
        """
        self.require_image(image_id)
        require_label_tag(tag)
        uri = Path(self._datastore.get_image_uri(image_id))
        try:
            image = self._images.get(uri)
        except ImageError as error:
            # A slide is too large to be opened as a whole; what is drawn on it comes as outlines.
            if file.suffix not in (".xml", ".geojson") or not _may_be_slide(uri, error):
                raise
            require_polygons(file)
            yield file
            return
        labels = open_label(file, image, label_info)
        with as_volume(labels, image) if file.suffix == _RAW else nullcontext(file) as usable:
            yield usable

    def _is_listed(self, item_id: str) -> bool:
        """Whether the datastore lists an id; ids of other stores may have any form.

        Raises:
            HTTPException: 400 for an id that is not listed and cannot be a file name.
        """
        if item_id in self._datastore.list_images():
            return True
        _require_id(item_id)
        return False

    def _open(self, file: Path) -> None:
        """Opens an image, as a task would."""
        if is_slide_file(file):
            with closing(open_slide(file, self._images)):
                return
        self._images.get(file)


def _require_type(file: Path, types: Sequence[str]) -> None:
    """Refuses a type that the datastore would not list after its next scan."""
    if not any(file.name.endswith(known) for known in types):
        raise ImageError(
            f"a file of type {file.suffix or '(none)'} is not kept here, only {', '.join(types)}"
        )


def _may_be_slide(path: Path, error: ImageError) -> bool:
    return isinstance(error, ImageTooLargeError) or is_slide_file(path)


def _require_id(item_id: str) -> None:
    if _UNSAFE_ID.search(item_id) or len(item_id.encode(errors="replace")) > _MOST_BYTES:
        refuse(
            HTTPStatus.BAD_REQUEST,
            f"{item_id[:_MOST_BYTES]!r} cannot be an id: an id is a file name without type and folders, of "
            f"at most {_MOST_BYTES} bytes",
        )
