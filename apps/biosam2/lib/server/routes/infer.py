"""The server's inference routes, guarded.

MONAI Label answers ``POST /infer/{model}`` in a coroutine that computes, so one segmentation stops all
other requests; it hands any path in ``image`` to the task, so a client can read files of the server; and it
answers a params field that is no JSON object with a bare 500. These routes stand before its own: plain
functions, which the server runs in threads, that check the request and then call MONAI Label's code.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, File, Form, HTTPException, UploadFile
from monailabel.config import settings
from monailabel.endpoints import infer, wsi_infer
from monailabel.endpoints.infer import run_inference
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.endpoints.wsi_infer import WSIInput, run_wsi_inference
from monailabel.interfaces.app import MONAILabelApp
from pydantic import BeforeValidator, ValidationError

from lib.engine.interactive_priority import InteractivePriority
from lib.http import http_errors, json_object, require_label_tag
from lib.infers.dicom_seg_response import answer_with_segmentation

_User = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]

# Keys that MONAI Label itself puts into a request: from a client they would replace what was checked.
_RESERVED = ("image", "session", "description")
# Bytes that a file system has for a name are 255, and some of them are MONAI Label's own.
_LONGEST_ENDING = 200


def install(
    server: FastAPI, app: MONAILabelApp, models: Collection[str], priority: InteractivePriority
) -> None:
    """Puts the guarded routes before MONAI Label's own.

    Args:
        server: MONAI Label's FastAPI application.
        app: whose datastore and sessions the requests are checked against.
        models: names of the app's tasks.
        priority: Pauses background work while requests are answered.
    """
    routes = _Routes(_Guard(app, models), priority)
    router = APIRouter(prefix="/infer", include_in_schema=False)
    router.add_api_route("/wsi/{model}", routes.slide, methods=["POST"])
    router.add_api_route("/wsi_v2/{model}", routes.slide_upload, methods=["POST"])
    router.add_api_route("/{model}", routes.image, methods=["POST"])
    server.router.routes[:0] = router.routes


def _rounded(value: Any) -> Any:
    return round(value) if isinstance(value, float) and math.isfinite(value) else value


_Whole = Annotated[int, BeforeValidator(_rounded)]


class _Region(WSIInput):
    """What MONAI Label reads of a slide's request; the Digital Slide Archive sends numbers with fractions."""

    location: Sequence[_Whole] | None = (0, 0)
    size: Sequence[_Whole] | None = (0, 0)
    tile_size: Sequence[_Whole] | None = (1024, 1024)
    min_poly_area: float | None = None


class _Routes:
    """MONAI Label's inference routes, behind a guard. Their parameters are those of its own."""

    def __init__(self, guard: _Guard, priority: InteractivePriority):
        self._guard = guard
        self._priority = priority

    @contextmanager
    def _answering(self, background_tasks: BackgroundTasks) -> Iterator[None]:
        """While somebody waits. What an answer would delete when it was sent, a refusal deletes at once."""
        with self._priority.interactive():
            try:
                yield
            except BaseException:
                for task in background_tasks.tasks:
                    task.func(*task.args, **task.kwargs)
                raise

    def slide(
        self,
        background_tasks: BackgroundTasks,
        model: str,
        user: _User,
        image: str = "",
        session_id: str = "",
        wsi: _Region | None = None,
        output: wsi_infer.ResultType | None = None,
    ) -> Any:
        region = wsi or _Region()
        self._guard.check(model, image, session_id, None, region.params or {})
        with self._answering(background_tasks):
            return run_wsi_inference(background_tasks, model, image, session_id, None, region, output)

    def slide_upload(
        self,
        background_tasks: BackgroundTasks,
        model: str,
        user: _User,
        image: str = "",
        session_id: str = "",
        file: Annotated[UploadFile | None, File()] = None,
        wsi: Annotated[str, Form()] = "{}",
        output: wsi_infer.ResultType | None = None,
    ) -> Any:
        try:
            region = _Region.model_validate(json_object(wsi, "wsi"))
        except ValidationError as error:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail=f"wsi: {error}") from error
        self._guard.check(model, image, session_id, file, region.params or {})
        with self._answering(background_tasks):
            return run_wsi_inference(background_tasks, model, image, session_id, file, region, output)

    def image(
        self,
        background_tasks: BackgroundTasks,
        model: str,
        user: _User,
        image: str = "",
        session_id: str = "",
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        label: Annotated[UploadFile | None, File()] = None,
        output: infer.ResultType | None = None,
    ) -> Any:
        asked = json_object(params, "params")
        self._guard.check(model, image, session_id, file, asked)
        with self._answering(background_tasks):
            if output is infer.ResultType.dicom_seg:
                return answer_with_segmentation(self._guard.app, model, image, asked, background_tasks)
            return run_inference(background_tasks, model, image, session_id, params, file, label, output)


class _Guard:
    """Refuses a request that names what does not exist, or what a client may not name."""

    def __init__(self, app: MONAILabelApp, models: Collection[str]):
        self.app = app
        self._models = models

    def check(
        self, model: str, image: str, session_id: str, file: UploadFile | None, params: dict[str, Any]
    ) -> None:
        """Lets a good request pass.

        Raises:
            HTTPException: 400 or 404, with the reason.
        """
        if model not in self._models:
            _refuse(HTTPStatus.NOT_FOUND, f"there is no model {model!r}; there is {', '.join(self._models)}")
        if reserved := [key for key in _RESERVED if key in params]:
            _refuse(
                HTTPStatus.BAD_REQUEST,
                f"params must not hold {', '.join(reserved)}; name the image in the query",
            )
        if params.get("model", model) != model:
            _refuse(
                HTTPStatus.BAD_REQUEST, f"params name the model {params['model']!r}, the address {model!r}"
            )
        require_label_tag(params.get("label_tag", "original"))
        if file is not None:
            _check_name(file.filename or "")
        if session_id:
            self._check_session(session_id)
        elif file is None:
            self._check_image(image)

    def _check_session(self, session_id: str) -> None:
        sessions = self.app.sessions()
        if sessions is None or sessions.get_session(session_id) is None:
            _refuse(
                HTTPStatus.NOT_FOUND, f"there is no session {session_id!r}; it may have expired, upload again"
            )

    def _check_image(self, image: str) -> None:
        if not image:
            _refuse(
                HTTPStatus.BAD_REQUEST, "the request names no image; send ?image=<id>, a file or a session_id"
            )
        try:
            with http_errors():
                found = not Path(image).is_absolute() and self.app.datastore().get_image_uri(image)
        except (OSError, ValueError, KeyError) as error:
            _refuse(HTTPStatus.NOT_FOUND, f"the image {image!r} cannot be had from the datastore: {error}")
        if not found:
            _refuse(
                HTTPStatus.NOT_FOUND,
                f"there is no image {image!r} in the datastore; /datastore/ lists the ids",
            )


def _check_name(name: str) -> None:
    """MONAI Label's temporary file gets all endings of the client's."""
    endings = "".join(Path(name).suffixes)
    if len(endings.encode(errors="replace")) > _LONGEST_ENDING:
        _refuse(HTTPStatus.BAD_REQUEST, f"the file's name ends with {endings[:40]!r}...: send a shorter one")


def _refuse(status: HTTPStatus, reason: str) -> NoReturn:
    raise HTTPException(status, detail=reason)
