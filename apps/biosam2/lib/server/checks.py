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

import numpy as np
from fastapi import UploadFile
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.others.generic import file_checksum

from lib.datastores.labels import as_volume, open_label
from lib.datastores.local import LocalFolder
from lib.errors import ImageError, ImageTooLargeError, LabelError
from lib.images.cache import ImageCache
from lib.images.dicom import why_no_nifti
from lib.images.file_formats import split_ending
from lib.images.medical_image import MedicalImage
from lib.infers.label_merging import require_label_tag
from lib.labels.polygons import require_polygons
from lib.pathology.opening import is_slide_file, open_slide
from lib.server.routing import json_object, refuse

# Images are files of one folder, whose name is the id and the type. Hidden files are never listed.
_UNSAFE_ID = re.compile(r"[/\\\x00-\x1f]|^\.|^$")
# A name has at most 255 bytes, of which some are for its type and for what it is called while it is written.
_MOST_BYTES = 200
# Digests that MONAI Label's clients know; the first where they name none.
_ALGORITHMS = ("SHA256", "SHA512", "MD5")
_RAW = ".bin"
# A file's type, such as .nii.gz or .seg.nrrd.
_ENDING = re.compile(r"(\.[\w-]{1,16}){0,3}")
# The voxel grid of a client and that of the image: positions may differ by rounding, in millimetres.
_TOLERANCE_MM = 0.05
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def label_object(text: str, name: str) -> dict[str, Any]:
    """The JSON object of a form field about a label or image, with a usable ``label_info``.

    Args:
        text: JSON text.
        name: name of the field, for the error message.
    """
    value = json_object(text, name)
    # 3D Slicer's params are params of their own.
    for part in (value, value.get("params")):
        if isinstance(part, dict) and not _are_classes(part.get("label_info") or []):
            example = '[{"name": "spleen", "idx": 1}], where each name is text'
            refuse(HTTPStatus.BAD_REQUEST, f"label_info must be a list such as {example}")
    return value


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
        self.store = datastore
        self._images = images

    def require_image(self, image_id: str) -> None:
        """Lets the id of an existing image pass.

        Raises:
            BusyError: The DICOM store does not answer.
        """
        if self.is_listed(image_id) or self.store.get_image_uri(image_id):
            return
        refuse(
            HTTPStatus.NOT_FOUND,
            f"there is no image {image_id!r} in the datastore; /datastore/ lists the ids",
        )

    def require_readable(self, file: Path) -> None:
        """Lets a slide pass whose pixels can be read; other files are not opened.

        QuPath asks before each request, and sends the pixels of a slide that the server does not have.
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
            ImageError: The image cannot be opened.
        """
        self.require_image(image_id)
        return self._images.get(Path(self.store.get_image_uri(image_id)))

    def require_label(self, label_id: str, tag: str) -> None:
        """Lets an existing label pass.

        Raises:
            BusyError: The DICOM store does not answer.
        """
        self.is_listed(label_id)
        require_label_tag(tag)
        if self.store.get_label_uri(label_id, tag):
            return
        known = sorted(self.store.get_labels_by_image_id(label_id))
        there = f"it has {', '.join(known)}" if known else "it has none"
        refuse(HTTPStatus.NOT_FOUND, f"there is no label {tag!r} of {label_id!r}; {there}")

    def image_path(self, image_id: str) -> Path:
        """The file of an image."""
        self.require_image(image_id)
        path = Path(self.store.get_image_uri(image_id))
        if not path.is_file():
            reason = f"the image {image_id!r} is not one file: it cannot be downloaded as a file"
            if path.is_dir() and (why := why_no_nifti(path)):
                reason = f"the series {image_id!r} cannot be downloaded as one volume: {why}"
            refuse(HTTPStatus.NOT_FOUND, reason)
        return path

    def label_path(self, label_id: str, tag: str) -> Path:
        """The file of a label."""
        self.require_label(label_id, tag)
        path = Path(self.store.get_label_uri(label_id, tag))
        if not path.is_file():
            refuse(HTTPStatus.NOT_FOUND, f"the label {tag!r} of {label_id!r} has no file")
        return path

    def require_writable(self) -> None:
        """Refuses to go on where nothing can be saved.

        Raises:
            ReadOnlyError: The studies are read-only.
        """
        if isinstance(self.store, LocalFolder):
            self.store.require_writable()

    def is_new_image(self, image_id: str, file: Path) -> bool:
        """Whether an image has to be added; False where the same file is there already.

        Raises:
            ImageError: The file cannot be opened, or the datastore would not list it.
        """
        _require_id(image_id)
        if isinstance(self.store, LocalFolder):
            _require_type(file, self.store.types)
        self._open(file)
        there = self.store.get_image_uri(image_id)
        if not there or not Path(there).is_file():
            return True
        if filecmp.cmp(there, file, shallow=False):
            return False
        if labels := self.store.get_labels_by_image_id(image_id):
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
            ImageError: The image cannot be opened.
            LabelError: The label cannot be read, is empty, or does not fit the image.
        """
        self.require_image(image_id)
        require_label_tag(tag)
        uri = Path(self.store.get_image_uri(image_id))
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

    def is_listed(self, item_id: str) -> bool:
        """Whether the datastore lists an id; ids of other stores may have any form."""
        if item_id in self.store.list_images():
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


def require_grid(grid: Mapping[str, Any], image: MedicalImage) -> None:
    """Refuses raw voxels of another grid than the image's.

    Args:
        grid: Client's grid: ``dimensions`` (3), ``spacing`` (3) in millimetres, ``origin`` (3) and
            ``direction`` (9, one axis after the other) in LPS.
        image: Image that the label belongs to.

    Raises:
        LabelError: The grid cannot be read, or lies elsewhere.
    """
    try:
        dimensions = tuple(int(side) for side in grid["dimensions"])
        axes = np.asarray(grid["direction"], float).reshape(3, 3).T * np.asarray(grid["spacing"], float)
        origin = np.asarray(grid["origin"], float).reshape(3)
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            "grid cannot be read: expected dimensions (3), spacing (3), origin (3) and direction (9 numbers)"
        ) from error
    corners = np.array([(0, 0, 0), np.subtract(image.shape, 1)])
    own = corners @ image.affine[:3, :3].T + image.affine[:3, 3]
    sent = (corners @ axes.T + origin) @ _LPS_TO_RAS
    if dimensions != tuple(image.shape) or not np.allclose(own, sent, atol=_TOLERANCE_MM):
        raise LabelError(
            f"the label's grid {dimensions} from {np.round(sent[0], 2).tolist()} is not the image's "
            f"{tuple(image.shape)} from {np.round(own[0], 2).tolist()} (RAS, mm)"
        )
