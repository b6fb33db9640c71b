"""``/infer``: segments an image of the datastore, of a session, or one sent along."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, Response
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.utils.others.generic import get_mime_type
from pydantic import BaseModel, BeforeValidator, ValidationError
from requests_toolbelt import MultipartEncoder
from starlette.background import BackgroundTask

from lib.engine.interactive_priority import InteractivePriority
from lib.images.writing import gzip_file
from lib.infers.task import LABEL_FILE
from lib.prompts.parsing.objects import with_label_points
from lib.server.access import AnyUser, Role, User
from lib.server.checks import received, require_label_tag
from lib.server.error_responses import refuse
from lib.server.json_input import JSON_BODY, JsonBody, json_object
from lib.server.observability import Metrics
from lib.server.sessions import SessionStore
from lib.server.work_queue import WorkQueue

# Keys that the server itself puts into a request, or that would reach a subprocess.
_RESERVED = ("image", "session", "description", "bundle_path", LABEL_FILE)
# What makes a slide request a click instead of a segmentation of everything.
_PROMPTS = ("foreground", "background", "points", "boxes", "roi", "annotations")

# Bytes from which an answer is compressed for clients that take gzip.
_WORTH_COMPRESSING = 1 << 17


class ImageOutput(str, Enum):
    """Forms of an answer on an image; without one, a multipart answer with ``params`` and ``image``."""

    image = "image"
    json = "json"
    all = "all"
    dicom_seg = "dicom_seg"


class SlideOutput(str, Enum):
    """Forms of an answer on a slide."""

    asap = "asap"
    dsa = "dsa"
    json = "json"
    geojson = "geojson"


@runtime_checkable
class DicomSegStore(Protocol):
    """A datastore that knows the DICOM series of its images."""

    def as_dicom_seg(self, image_id: str, label: Path, label_info: Sequence[Mapping[str, Any]]) -> Path:
        """Writes a label of an image as a DICOM segmentation, to a temporary file of the caller's."""


class ServedApp(Protocol):
    """What the routes need of the app."""

    labels: list[str]

    @property
    def models(self) -> Mapping[str, InferTask]:
        """Tasks by name."""

    def datastore(self) -> Datastore:
        """Datastore of the images."""

    def infer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Segments an image."""

    def infer_wsi(self, request: dict[str, Any]) -> dict[str, Any]:
        """Finds objects on a slide."""


def _rounded(value: Any) -> Any:
    return round(value) if isinstance(value, float) and math.isfinite(value) else value


_Whole = Annotated[int, BeforeValidator(_rounded)]


class SlideRegion(BaseModel):
    """Region of a slide in pixels of level 0; the Digital Slide Archive sends numbers with fractions."""

    level: int | None = 0
    location: Sequence[_Whole] | None = (0, 0)
    size: Sequence[_Whole] | None = (0, 0)
    tile_size: Sequence[_Whole] | None = (1024, 1024)
    min_poly_area: float | None = None
    params: dict[str, Any] | None = None


class InferRoutes:
    """The inference routes. Parameters have MONAI Label's names.

    Args:
        app: The app.
        sessions: Uploads that clients refer to; None where they are switched off.
        priority: Told while somebody waits for an answer.
        clicks: Queue of requests on one slice.
        heavy: Queue of requests on a volume or a whole slide.
        metrics: Takes the latencies.
    """

    def __init__(
        self,
        app: ServedApp,
        sessions: SessionStore | None,
        priority: InteractivePriority,
        clicks: WorkQueue,
        heavy: WorkQueue,
        metrics: Metrics,
    ):
        self._app = app
        self._sessions = sessions
        self._priority = priority
        self._clicks = clicks
        self._heavy = heavy
        self._metrics = metrics

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/infer", tags=["Infer"])
        add = partial(router.add_api_route, methods=["POST"], response_model=None)
        add("/wsi/{model}", self.slide, openapi_extra=JSON_BODY)
        add("/wsi_v2/{model}", self.slide_upload)
        add("/{model}", self.image)
        return router

    async def image(
        self,
        request: Request,
        model: str,
        user: AnyUser,
        image: str = "",
        session_id: str = "",
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        label: Annotated[UploadFile | None, File()] = None,
        output: ImageOutput | None = None,
    ) -> Response:
        """Segments an image from the prompts in ``params``."""
        asked = self._checked(model, json_object(params, "params"), user)
        queue = self._heavy if self._app.models[model].dimension == 3 else self._clicks
        gzip = "gzip" in request.headers.get("accept-encoding", "")
        work = partial(self._answer_image, asked, image, session_id, file, label, output, gzip)
        return await queue.run(request, self._interactive(work))

    async def slide(
        self,
        request: Request,
        model: str,
        user: AnyUser,
        body: JsonBody,
        image: str = "",
        session_id: str = "",
        output: SlideOutput | None = None,
    ) -> Response:
        """Finds objects on a slide: around the prompts, or everything in the region."""
        return await self._slide(request, model, user, body, image, session_id, None, output)

    async def slide_upload(
        self,
        request: Request,
        model: str,
        user: AnyUser,
        image: str = "",
        session_id: str = "",
        file: Annotated[UploadFile | None, File()] = None,
        wsi: Annotated[str, Form()] = "{}",
        output: SlideOutput | None = None,
    ) -> Response:
        """As ``/wsi``, on a patch that is sent along."""
        body = json_object(wsi, "wsi")
        return await self._slide(request, model, user, body, image, session_id, file, output)

    async def _slide(
        self,
        request: Request,
        model: str,
        user: User,
        body: dict[str, Any],
        image: str,
        session_id: str,
        file: UploadFile | None,
        output: SlideOutput | None,
    ) -> Response:
        try:
            region = SlideRegion.model_validate(body)
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail=f"wsi: {reasons}") from error
        own = region.model_dump(exclude={"params"})
        asked = {**own, **self._checked(model, region.params or {}, user), "output": (output or "asap")}
        queue = self._clicks if any(asked.get(name) for name in _PROMPTS) else self._heavy
        work = partial(self._answer_slide, asked, image, session_id, file)
        return await queue.run(request, self._interactive(work))

    def _interactive(self, work: Callable[[], Response]) -> Callable[[], Response]:
        """The work, with background work paused meanwhile."""

        def prioritized() -> Response:
            with self._priority.interactive():
                return work()

        return prioritized

    def _answer_image(
        self,
        asked: dict[str, Any],
        image: str,
        session_id: str,
        file: UploadFile | None,
        label: UploadFile | None,
        output: ImageOutput | None,
        gzip: bool,
    ) -> Response:
        if output is ImageOutput.dicom_seg:
            return self._answer_dicom_seg(asked, image)
        with self._opened(image, session_id, file) as (name, more), ExitStack() as stack:
            if label is not None and label.filename:
                more = {**more, LABEL_FILE: str(stack.enter_context(_received_label(label)))}
            result = self._app.infer({**asked, "image": name, **more})
        self._observe(asked["model"], result["params"])
        return _image_response(result, output, gzip)

    def _answer_slide(
        self, asked: dict[str, Any], image: str, session_id: str, file: UploadFile | None
    ) -> Response:
        with self._opened(image, session_id, file) as (name, more):
            result = self._app.infer_wsi({**asked, "image": name, **more})
        self._observe(asked["model"], result["params"])
        path = result["file"]
        if path is None or asked["output"] == SlideOutput.json:
            _discard(path)
            return JSONResponse(result["params"])
        return _file_response(path)

    def _answer_dicom_seg(self, asked: dict[str, Any], image: str) -> Response:
        """A DICOM segmentation of the series, where the datastore is a DICOM store."""
        store = self._app.datastore()
        if not isinstance(store, DicomSegStore) or not image:
            refuse(HTTPStatus.BAD_REQUEST, "output=dicom_seg needs ?image=<series> and a DICOM store")
        with self._opened(image, "", None) as (name, _):
            result = self._app.infer({**asked, "image": name, "result_extension": ".nii.gz"})
        self._observe(asked["model"], result["params"])
        names: Mapping[str, int] = result["params"]["label_names"]
        segments = asked.get("label_info") or [{"name": name, "idx": value} for name, value in names.items()]
        try:
            path = store.as_dicom_seg(image, Path(result["file"]), segments)
        finally:
            _discard(result["file"])
        return _file_response(str(path), "application/dicom")

    def _checked(self, model: str, params: dict[str, Any], user: User) -> dict[str, Any]:
        """The request of a task.

        Raises:
            HTTPException: 400, 403 or 404, with the reason.
        """
        models = self._app.models
        if model not in models:
            refuse(HTTPStatus.NOT_FOUND, f"Unknown model {model!r} (available: {', '.join(models)})")
        params = with_label_points(params, self._app.labels)
        if reserved := [name for name in _RESERVED if name in params]:
            refuse(HTTPStatus.BAD_REQUEST, f"params must not hold {', '.join(reserved)}: use the query")
        if params.get("model", model) != model:
            refuse(
                HTTPStatus.BAD_REQUEST, f"params name the model {params['model']!r}, the address {model!r}"
            )
        tag = params.get("label_tag", "original")
        require_label_tag(tag)
        if params.get("save_label") and user.role < Role.ANNOTATOR:
            refuse(HTTPStatus.FORBIDDEN, f"save_label needs the role {Role.ANNOTATOR.monailabel_name}")
        return {**params, "model": model, "user": user.name}

    @contextmanager
    def _opened(
        self, image: str, session_id: str, file: UploadFile | None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The image's id or path, and what else the request needs to know of it.

        Raises:
            HTTPException: 400 or 404, with the reason.
        """
        if session_id:
            session = self._sessions.get_session(session_id) if self._sessions else None
            if session is None:
                refuse(
                    HTTPStatus.NOT_FOUND,
                    f"Unknown session {session_id[:100]!r}: it may have expired, upload again",
                )
            yield str(session.image), {"session": session.to_json()}
        elif file is not None and file.filename:
            with received(file) as (_, path):
                yield str(path), {}
        else:
            yield self._known(image), {}

    def _known(self, image: str) -> str:
        if not image:
            refuse(HTTPStatus.BAD_REQUEST, "No image is named: send ?image=<id>, a file or a session_id")
        # The app takes an absolute path for a file that was sent along.
        if not Path(image).is_absolute():
            try:
                if self._app.datastore().get_image_uri(image):
                    return image
            except (ValueError, KeyError):
                pass
        refuse(
            HTTPStatus.NOT_FOUND, f"there is no image {image!r} in the datastore: /datastore/ lists the ids"
        )

    def _observe(self, model: str, params: Mapping[str, Any]) -> None:
        for stage, seconds in (params.get("latencies") or {}).items():
            self._metrics.stages.labels(model, stage).observe(float(seconds))


@contextmanager
def _received_label(upload: UploadFile) -> Iterator[Path]:
    if (upload.filename or "").lower().endswith(".bin"):
        refuse(HTTPStatus.BAD_REQUEST, "a label map of raw bytes (.bin) has no shape: send NIfTI or NRRD")
    with received(upload) as (_, path):
        yield path


def _image_response(result: Mapping[str, Any], output: ImageOutput | None, gzip: bool) -> Response:
    """The answer in the form that was asked for, compressed where the client takes gzip."""
    path, params = result["file"], result["params"]
    if path is None or output is ImageOutput.json:
        _discard(path)
        return JSONResponse(params)
    gzip = gzip and Path(path).stat().st_size >= _WORTH_COMPRESSING
    if output is ImageOutput.image and not gzip:
        return _file_response(path)
    name, media_type, before, after = Path(path).name, get_mime_type(path), b"", b""
    headers = {"Vary": "Accept-Encoding", **({"Content-Encoding": "gzip"} if gzip else {})}
    if output is ImageOutput.image:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    else:
        fields = {"params": (None, json.dumps(params), "application/json"), "image": (name, b"", media_type)}
        form = MultipartEncoder(fields=fields)
        after = f"\r\n--{form.boundary_value}--\r\n".encode()
        media_type, before = form.content_type, form.to_string().removesuffix(after)
    try:
        content = gzip_file(Path(path), before, after) if gzip else before + Path(path).read_bytes() + after
    finally:
        _discard(path)
    return Response(content, media_type=media_type, headers=headers)


def _file_response(path: str, media_type: str | None = None) -> Response:
    """A temporary file, which is removed when it was sent."""
    return FileResponse(
        path,
        media_type=media_type or get_mime_type(path),
        filename=Path(path).name,
        background=BackgroundTask(_discard, path),
    )


def _discard(path: str | None) -> None:
    if path is not None:
        Path(path).unlink(missing_ok=True)
