"""The server's routes to images and labels, guarded.

MONAI Label saves whatever it is sent as a label, and the next training finds out what it was; it answers an
unknown id with a bare 500 or with an empty object; and it works in coroutines, so one large upload stops all
other requests. These routes stand before its own: plain functions, which the server runs in threads, that
look at what was sent before anything is changed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, HTTPException, UploadFile
from monailabel.config import settings
from monailabel.endpoints import datastore as monailabel_routes
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag
from starlette.background import BackgroundTask

from lib.http import http_errors
from lib.images.cache import ImageCache
from lib.server.checks import Checks, plain_object, received, require_sum
from lib.server.label_versions import require_grid, require_version

_User = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
_Annotator = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
_Admin = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]
_FINAL = str(DefaultLabelTag.FINAL.value)


def install(server: FastAPI, app: MONAILabelApp, images: ImageCache) -> None:
    """Puts the guarded routes before MONAI Label's own.

    Args:
        server: MONAI Label's FastAPI application.
        app: whose datastore they are of.
        images: opened ones; a label is compared with its image.
    """
    routes = _Routes(app, Checks(app.datastore(), images))
    router = APIRouter(prefix="/datastore", include_in_schema=False)

    def add(method: str, paths: str, answer: Callable[..., Any]) -> None:
        for path in paths.split():
            router.add_api_route(path, answer, methods=[method])

    add("GET", "/", routes.listing)
    add("PUT", "/ /image", routes.add_image)
    add("GET", "/image", routes.image)
    add("HEAD", "/image", routes.has_image)
    add("DELETE", "/ /image", routes.remove_image)
    add("GET", "/image/info", routes.image_info)
    add("PUT", "/image/info", routes.update_image_info)
    add("PUT", "/label", routes.save_label)
    add("GET", "/label", routes.label)
    add("HEAD", "/label", routes.has_label)
    add("DELETE", "/label", routes.remove_label)
    add("GET", "/label/info", routes.label_info)
    add("PUT", "/label/info", routes.update_label_info)
    add("PUT", "/updatelabelinfo", routes.update_label_params)
    add("GET", "/dataset", routes.dataset)
    server.router.routes[:0] = router.routes


class _Routes:
    """MONAI Label's routes, behind the checks. Their parameters are those of its own."""

    def __init__(self, app: MONAILabelApp, checks: Checks):
        self._app = app
        self._checks = checks
        # One label at a time, so that none is saved between the check of a version and its replacement.
        self._saving = threading.Lock()

    @contextmanager
    def _of_image(self, image_id: str) -> Iterator[None]:
        with http_errors():
            self._checks.require_image(image_id)
            yield

    @contextmanager
    def _of_label(self, label_id: str, tag: str) -> Iterator[None]:
        with http_errors():
            self._checks.require_label(label_id, tag)
            yield

    def listing(self, user: _User, output: monailabel_routes.ResultType | None = None) -> Any:
        with http_errors():
            return monailabel_routes.datastore(output)

    def add_image(
        self,
        user: _Annotator,
        file: Annotated[UploadFile, File()],
        image: str = "",
        params: Annotated[str, Form()] = "{}",
    ) -> dict[str, Any]:
        info = {**plain_object(params, "params"), "user": user.username, "saved_by": user.username}
        with http_errors(), received(file) as (name, path):
            image_id = image or name
            if not self._checks.is_new_image(image_id, path):
                return {"image": image_id}
            return {"image": self._app.datastore().add_image(image_id, str(path), info)}

    def image(self, user: _User, image: str) -> Any:
        with self._of_image(image):
            return monailabel_routes.download_image(image)

    def has_image(self, user: _User, image: str, check_sum: str | None = None) -> Any:
        with self._of_image(image):
            found = monailabel_routes.download_image(image, check_only=True)
            if check_sum:
                require_sum(Path(self._app.datastore().get_image_uri(image)), check_sum)
            return found

    def remove_image(self, user: _Admin, id: str) -> Any:
        with self._of_image(id):
            return monailabel_routes.remove_image(id, user.username)

    def image_info(self, user: _User, image: str) -> Any:
        with self._of_image(image):
            return monailabel_routes.get_image_info(image)

    def update_image_info(self, user: _Annotator, image: str, info: Annotated[str, Form()] = "{}") -> Any:
        plain_object(info, "info")
        with self._of_image(image):
            # Of a series that is not here, nothing is kept.
            self._app.datastore().get_image_uri(image)
            return monailabel_routes.update_image_info(image, info, user.username)

    def save_label(
        self,
        user: _Annotator,
        image: str,
        label: Annotated[UploadFile, File()],
        params: Annotated[str, Form()] = "{}",
        tag: str = _FINAL,
    ) -> dict[str, Any]:
        info = {**plain_object(params, "params"), "user": user.username}
        tag, replaces, grid = tag or _FINAL, info.pop("replaces", None), info.pop("grid", None)
        with http_errors(), received(label) as (_, path), self._saving:
            if grid is not None:
                require_grid(grid, self._checks.image(image))
            with self._checks.usable_label(image, tag, path, info.get("label_info")) as usable:
                require_version(self._app.datastore(), image, tag, replaces)
                label_id = self._app.datastore().save_label(image, str(usable), tag, info)
            answer = self._app.on_save_label(image, label_id) or {}
            return {**answer, "image": image, "label": label_id}

    def label(self, user: _User, label: str, tag: str) -> Any:
        with self._of_label(label, tag):
            return monailabel_routes.download_label(label, tag)

    def has_label(self, user: _User, image: str, tag: str) -> Any:
        with self._of_label(image, tag):
            return monailabel_routes.download_label(image, tag, check_only=True)

    def remove_label(self, user: _Admin, id: str, tag: str) -> Any:
        with self._of_label(id, tag):
            return monailabel_routes.remove_label(id, tag, user.username)

    def label_info(self, user: _User, label: str, tag: str) -> Any:
        with self._of_label(label, tag):
            return monailabel_routes.get_label_info(label, tag)

    def update_label_info(
        self, user: _Annotator, label: str, tag: str, info: Annotated[str, Form()] = "{}"
    ) -> Any:
        plain_object(info, "info")
        with self._of_label(label, tag):
            return monailabel_routes.update_label_info(label, tag, info, user.username)

    def update_label_params(
        self, user: _Annotator, label: str, tag: str, params: Annotated[str, Form()] = "{}"
    ) -> Any:
        """The former name of ``update_label_info``, with another name for its field."""
        return self.update_label_info(user, label, tag, params)

    def dataset(self, user: _Annotator, limit_cases: int | None = None) -> Any:
        with http_errors():
            # What has just gone could not be packed.
            self._app.datastore().refresh()
            if not self._app.datastore().datalist():
                raise HTTPException(
                    HTTPStatus.NOT_FOUND,
                    detail="no image has a final label yet: there is nothing to download",
                )
            answer = monailabel_routes.download_dataset(limit_cases)
            answer.background = BackgroundTask(os.unlink, answer.path)
            return answer
