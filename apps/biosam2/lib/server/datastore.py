"""``/datastore``: images and labels, checked before anything changes."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import File, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse, Response
from monailabel.interfaces.datastore import DefaultLabelTag
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from lib.datastores.label_entries import AUTOMATIC
from lib.datastores.local import label_version, replace_label
from lib.images.cache import file_stamp
from lib.server.checks import Checks, label_object, received, require_grid, require_sum
from lib.server.routing import (
    Admin,
    Annotator,
    AnyUser,
    Routes,
    file_response,
    json_object,
    of_server,
    refuse,
)

_FINAL = str(DefaultLabelTag.FINAL.value)


class Listing(str, Enum):
    """Forms of the datastore's content."""

    train = "train"
    stats = "stats"
    all = "all"


routes = Routes(prefix="/datastore", tags=["Datastore"])
_Checks = Annotated[Checks, of_server("checks")]
_Text = Annotated[str, Form()]
# Told user and image where a viewer begins with an image.
_Opening = Annotated[Callable[[str, str], None], of_server("on_opening")]


@routes.get("/")
def listing(user: AnyUser, checks: _Checks, output: Listing | None = None) -> Any:
    """Counts, everything, or the labelled images."""
    if output is Listing.all:
        return checks.store.json()
    return checks.store.datalist() if output is Listing.train else checks.store.status()


@routes.put("/")
@routes.put("/image")
def add_image(
    user: Annotator,
    checks: _Checks,
    file: Annotated[UploadFile, File()],
    image: str = "",
    params: _Text = "{}",
) -> dict[str, Any]:
    """Adds an image; the same file again changes nothing."""
    info = {**label_object(params, "params"), "user": user.name, "saved_by": user.name}
    with received(file) as (name, path):
        image_id = image or name
        if not checks.is_new_image(image_id, path):
            return {"image": image_id}
        return {"image": checks.store.add_image(image_id, str(path), info)}


@routes.get("/image")
def image_file(
    request: Request, user: AnyUser, checks: _Checks, on_opening: _Opening, image: str
) -> Response:
    """The image's file, or a range of its bytes; 304 where the client has it already."""
    path = checks.image_path(image)
    on_opening(user.name, image)
    return _file_or_known(path, request)


@routes.head("/image")
def has_image(user: AnyUser, checks: _Checks, image: str, check_sum: str | None = None) -> dict[str, Any]:
    """Whether an image is there and readable, with the client's ``check_sum``."""
    path = checks.image_path(image)
    checks.require_readable(path)
    if check_sum:
        require_sum(path, check_sum)
    return {}


@routes.delete("/")
@routes.delete("/image")
def remove_image(user: Admin, checks: _Checks, id: str) -> dict[str, Any]:
    """Removes an image and its labels."""
    checks.require_image(id)
    checks.store.remove_image(id)
    return {}


@routes.get("/image/info")
def image_info(user: AnyUser, checks: _Checks, on_opening: _Opening, image: str) -> Any:
    """What is known of an image."""
    checks.require_image(image)
    on_opening(user.name, image)
    return checks.store.get_image_info(image)


@routes.put("/image/info")
def update_image_info(user: Annotator, checks: _Checks, image: str, info: _Text = "{}") -> Any:
    """Adds to what is known of an image."""
    changes = {**json_object(info, "info"), "user": user.name}
    checks.require_writable()
    checks.require_image(image)
    # A series that was not downloaded yet has no place for its info.
    checks.store.get_image_uri(image)
    return checks.store.update_image_info(image, changes)


@routes.put("/label")
def save_label(
    user: Annotator,
    checks: _Checks,
    on_label: Annotated[Callable[[str, str], Any], of_server("on_label")],
    image: str,
    label: Annotated[UploadFile, File()],
    params: _Text = "{}",
    tag: str = _FINAL,
) -> dict[str, Any]:
    """Saves a label that a person made.

    ``params`` may have ``replaces``, the ``version`` of the label that it was made from: where the stored one
    is another by now, the answer is 409.
    """
    info = {**_without_mark(label_object(params, "params")), "user": user.name}
    tag, replaces, grid = tag or _FINAL, info.pop("replaces", None), info.pop("grid", None)
    with received(label) as (_, path):
        if grid is not None:
            require_grid(grid, checks.image(image))
        with checks.usable_label(image, tag, path, info.get("label_info")) as usable:
            saved = replace_label(checks.store, image, usable, tag, info, replaces)
    told = on_label(image, saved.label_id) or {}
    return {**told, "image": image, "label": saved.label_id, "version": saved.version}


@routes.get("/label")
def label_file(request: Request, user: AnyUser, checks: _Checks, label: str, tag: str) -> Response:
    """The label's file, or a range of its bytes; 304 where the client has it already."""
    return _file_or_known(checks.label_path(label, tag), request)


@routes.head("/label")
def has_label(user: AnyUser, checks: _Checks, image: str, tag: str) -> dict[str, Any]:
    """Whether a label is there."""
    checks.label_path(image, tag)
    return {}


@routes.delete("/label")
def remove_label(user: Admin, checks: _Checks, id: str, tag: str) -> dict[str, Any]:
    """Removes a label."""
    checks.require_label(id, tag)
    checks.store.remove_label(id, tag)
    return {}


@routes.get("/label/info")
def label_info(user: AnyUser, checks: _Checks, on_opening: _Opening, label: str, tag: str) -> Any:
    """What is known of a label; OHIF asks for it when it has opened a series."""
    if checks.is_listed(label):
        on_opening(user.name, label)
    checks.require_label(label, tag)
    version = label_version(checks.store, label, tag)
    return {**checks.store.get_label_info(label, tag), "version": version}


@routes.put("/label/info")
def update_label_info(user: Annotator, checks: _Checks, label: str, tag: str, info: _Text = "{}") -> Any:
    """Adds to what is known of a label."""
    changes = {**_without_mark(label_object(info, "info")), "user": user.name}
    checks.require_writable()
    checks.require_label(label, tag)
    return checks.store.update_label_info(label, tag, changes)


@routes.put("/updatelabelinfo")
def update_label_params(user: Annotator, checks: _Checks, label: str, tag: str, params: _Text = "{}") -> Any:
    """The former name of ``update_label_info``, with another name for its field."""
    return update_label_info(user, checks, label, tag, params)


@routes.get("/dataset")
def dataset(
    user: Annotator, checks: _Checks, limit_cases: Annotated[int | None, Query(ge=1)] = None
) -> FileResponse:
    """All images with final labels, as a zip archive."""
    # What has just gone could not be packed.
    checks.store.refresh()
    if not checks.store.datalist():
        refuse(HTTPStatus.NOT_FOUND, "no image has a final label yet: there is nothing to download")
    return file_response(checks.store.get_dataset_archive(limit_cases), name="dataset.zip", temporary=True)


def _file_or_known(path: Path, request: Request) -> Response:
    """A file, unless the client has just this one."""
    answer = file_response(path)
    # Starlette's own tag is made of size and time, which programs such as rsync -t keep.
    answer.headers.update({"ETag": f'"{file_stamp(path)}"', "Cache-Control": "private, no-cache"})
    known = StaticFiles().is_not_modified(answer.headers, request.headers)
    return NotModifiedResponse(answer.headers) if known else answer


def _without_mark(info: dict[str, Any]) -> dict[str, Any]:
    """A client's info of a label: only the server calls a label automatic."""
    return {name: value for name, value in info.items() if name != AUTOMATIC}
