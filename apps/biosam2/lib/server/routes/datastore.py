"""``/datastore``: images and labels, checked before anything changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import FileResponse
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.utils.others.generic import get_mime_type
from starlette.background import BackgroundTask

from lib.datastores.label_entries import AUTOMATIC
from lib.datastores.local import LocalFolder
from lib.images.cache import ImageCache
from lib.images.dicom import why_no_nifti
from lib.server.access import Admin, Annotator, AnyUser
from lib.server.checks import Checks, label_object, received, require_sum
from lib.server.error_responses import refuse
from lib.server.json_input import json_object
from lib.server.label_versions import require_grid, require_version

_FINAL = str(DefaultLabelTag.FINAL.value)


class Listing(str, Enum):
    """Forms of the datastore's content."""

    train = "train"
    stats = "stats"
    all = "all"


class DatastoreRoutes:
    """The routes of images and labels. Parameters have MONAI Label's names.

    Args:
        app: The app.
        images: Cache of opened images; a label is compared with its image.
    """

    def __init__(self, app: MONAILabelApp, images: ImageCache):
        self._app = app
        self._store = app.datastore()
        self._checks = Checks(self._store, images)
        # One label at a time, so that none is saved between the check of a version and its replacement.
        self._saving = threading.Lock()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/datastore", tags=["Datastore"])

        def add(method: str, paths: str, answer: Callable[..., Any]) -> None:
            for path in paths.split():
                router.add_api_route(path, answer, methods=[method], response_model=None)

        add("GET", "/", self.listing)
        add("PUT", "/ /image", self.add_image)
        add("GET", "/image", self.image)
        add("HEAD", "/image", self.has_image)
        add("DELETE", "/ /image", self.remove_image)
        add("GET", "/image/info", self.image_info)
        add("PUT", "/image/info", self.update_image_info)
        add("PUT", "/label", self.save_label)
        add("GET", "/label", self.label)
        add("HEAD", "/label", self.has_label)
        add("DELETE", "/label", self.remove_label)
        add("GET", "/label/info", self.label_info)
        add("PUT", "/label/info", self.update_label_info)
        add("PUT", "/updatelabelinfo", self.update_label_params)
        add("GET", "/dataset", self.dataset)
        return router

    def listing(self, user: AnyUser, output: Listing | None = None) -> Any:
        """Counts, everything, or the labelled images."""
        if output is Listing.all:
            return self._store.json()
        return self._store.datalist() if output is Listing.train else self._store.status()

    def add_image(
        self,
        user: Annotator,
        file: Annotated[UploadFile, File()],
        image: str = "",
        params: Annotated[str, Form()] = "{}",
    ) -> dict[str, Any]:
        """Adds an image; the same file again changes nothing."""
        info = {**label_object(params, "params"), "user": user.name, "saved_by": user.name}
        with received(file) as (name, path):
            image_id = image or name
            if not self._checks.is_new_image(image_id, path):
                return {"image": image_id}
            return {"image": self._store.add_image(image_id, str(path), info)}

    def image(self, user: AnyUser, image: str) -> FileResponse:
        """The image's file."""
        return _file(self._image_path(image))

    def has_image(self, user: AnyUser, image: str, check_sum: str | None = None) -> dict[str, Any]:
        """Whether an image is there and readable, with the client's ``check_sum``."""
        path = self._image_path(image)
        self._checks.require_readable(path)
        if check_sum:
            require_sum(path, check_sum)
        return {}

    def remove_image(self, user: Admin, id: str) -> dict[str, Any]:
        """Removes an image and its labels."""
        self._checks.require_image(id)
        self._store.remove_image(id)
        return {}

    def image_info(self, user: AnyUser, image: str) -> Any:
        """What is known of an image."""
        self._checks.require_image(image)
        return self._store.get_image_info(image)

    def update_image_info(self, user: Annotator, image: str, info: Annotated[str, Form()] = "{}") -> Any:
        """Adds to what is known of an image."""
        changes = {**json_object(info, "info"), "user": user.name}
        self._require_writable()
        self._checks.require_image(image)
        # A series that was not downloaded yet has no place for its info.
        self._store.get_image_uri(image)
        return self._store.update_image_info(image, changes)

    def save_label(
        self,
        user: Annotator,
        image: str,
        label: Annotated[UploadFile, File()],
        params: Annotated[str, Form()] = "{}",
        tag: str = _FINAL,
    ) -> dict[str, Any]:
        """Saves a label that a person made."""
        info = {**_without_mark(label_object(params, "params")), "user": user.name}
        tag, replaces, grid = tag or _FINAL, info.pop("replaces", None), info.pop("grid", None)
        with received(label) as (_, path), self._saving:
            if grid is not None:
                require_grid(grid, self._checks.image(image))
            with self._checks.usable_label(image, tag, path, info.get("label_info")) as usable:
                require_version(self._store, image, tag, replaces)
                label_id = self._store.save_label(image, str(usable), tag, info)
        answer = self._app.on_save_label(image, label_id) or {}
        return {**answer, "image": image, "label": label_id}

    def label(self, user: AnyUser, label: str, tag: str) -> FileResponse:
        """The label's file."""
        return _file(self._label_path(label, tag))

    def has_label(self, user: AnyUser, image: str, tag: str) -> dict[str, Any]:
        """Whether a label is there."""
        self._label_path(image, tag)
        return {}

    def remove_label(self, user: Admin, id: str, tag: str) -> dict[str, Any]:
        """Removes a label."""
        self._checks.require_label(id, tag)
        self._store.remove_label(id, tag)
        return {}

    def label_info(self, user: AnyUser, label: str, tag: str) -> Any:
        """What is known of a label."""
        self._checks.require_label(label, tag)
        return self._store.get_label_info(label, tag)

    def update_label_info(
        self, user: Annotator, label: str, tag: str, info: Annotated[str, Form()] = "{}"
    ) -> Any:
        """Adds to what is known of a label."""
        changes = {**_without_mark(label_object(info, "info")), "user": user.name}
        self._require_writable()
        self._checks.require_label(label, tag)
        return self._store.update_label_info(label, tag, changes)

    def update_label_params(
        self, user: Annotator, label: str, tag: str, params: Annotated[str, Form()] = "{}"
    ) -> Any:
        """The former name of ``update_label_info``, with another name for its field."""
        return self.update_label_info(user, label, tag, params)

    def dataset(self, user: Annotator, limit_cases: Annotated[int | None, Query(ge=1)] = None) -> Any:
        """All images with final labels, as a zip archive."""
        # What has just gone could not be packed.
        self._store.refresh()
        if not self._store.datalist():
            reason = "no image has a final label yet: there is nothing to download"
            refuse(HTTPStatus.NOT_FOUND, reason)
        path = self._store.get_dataset_archive(limit_cases)
        done = BackgroundTask(os.unlink, path)
        return FileResponse(path, media_type=get_mime_type(path), filename="dataset.zip", background=done)

    def _require_writable(self) -> None:
        if isinstance(self._store, LocalFolder):
            self._store.require_writable()

    def _image_path(self, image: str) -> Path:
        self._checks.require_image(image)
        path = Path(self._store.get_image_uri(image))
        if not path.is_file():
            reason = f"the image {image!r} is not one file: it cannot be downloaded as a file"
            if path.is_dir() and (why := why_no_nifti(path)):
                reason = f"the series {image!r} cannot be downloaded as one volume: {why}"
            refuse(HTTPStatus.NOT_FOUND, reason)
        return path

    def _label_path(self, label: str, tag: str) -> Path:
        self._checks.require_label(label, tag)
        path = Path(self._store.get_label_uri(label, tag))
        if not path.is_file():
            reason = f"the label {tag!r} of {label!r} has no file"
            refuse(HTTPStatus.NOT_FOUND, reason)
        return path


def _without_mark(info: dict[str, Any]) -> dict[str, Any]:
    """A client's info of a label: only the server calls a label automatic."""
    return {name: value for name, value in info.items() if name != AUTOMATIC}


def _file(path: Path) -> FileResponse:
    return FileResponse(path, media_type=get_mime_type(str(path)), filename=path.name)
