"""``/infer``: segments an image of the datastore, of a session, or one sent along, in bounded queues."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Depends, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from monailabel.utils.others.generic import get_mime_type
from pydantic import BaseModel, BeforeValidator, ValidationError
from requests_toolbelt import MultipartEncoder
from starlette.exceptions import HTTPException

from lib.datastores.dicomweb import DicomWebStore
from lib.engine.runtime import Cancellation, InteractivePriority, raise_if_cancelled
from lib.errors import BusyError, Cancelled
from lib.images.writing import gzip_file
from lib.infers.label_merging import require_label_tag
from lib.infers.task import LABEL_FILE
from lib.infers.task import infer as infer_image
from lib.prompts.parsing import with_label_points
from lib.server.api_keys import Role, User
from lib.server.checks import received
from lib.server.routing import (
    AnyUser,
    JsonBody,
    Routes,
    file_response,
    json_object,
    of_server,
    refuse,
    refuse_keys,
    require_known,
)
from lib.server.sessions import SessionStore
from lib.server.status import Metrics

T = TypeVar("T")

# Keys that the server itself puts into a request, or that would reach a subprocess.
_RESERVED = ("image", "session", "description", "bundle_path", LABEL_FILE)
# What makes a slide request a click instead of a segmentation of everything.
_PROMPTS = ("foreground", "background", "points", "boxes", "roi", "annotations")

# Bytes from which an answer is compressed for clients that take gzip.
_WORTH_COMPRESSING = 1 << 17
# Threads for clicks; the network itself runs one step at a time, the rest overlaps.
CLICK_WORKERS = 8
CLICK_QUEUE = 256
# Two volumes at once keep the network busy while one of them is read or written.
HEAVY_WORKERS = 2
_STOPPED = "the server is being stopped: send the request again when it is back"


class WorkQueue:
    """A bounded number of threads and of requests that wait for one, first come, first served.

    Args:
        workers: Requests at once.
        waiting: Requests that may wait.
    """

    def __init__(self, workers: int, waiting: int):
        self._most = workers + waiting
        self._threads = anyio.CapacityLimiter(workers)
        # Requests that run or wait.
        self.pending = 0
        # Requests of which a thread, or the wait for one, has not ended.
        self.running: dict[Cancellation, Request] = {}
        self._is_stopped = False

    def stop(self) -> None:
        """Refuses further work, and stops what runs or waits at its next step: the server ends."""
        self._is_stopped = True
        for work in list(self.running):
            work.cancel()

    async def run(self, request: Request, work: Callable[[], T]) -> T:
        """Runs work for a client in a thread, and stops it at its next step when the client closes.

        Args:
            request: The client's request, whose body was read.
            work: What to do; calls ``raise_if_cancelled`` between its steps.

        Raises:
            BusyError: The queue is full, or the server ends.
            Cancelled: The client closed the connection.
        """
        if self._is_stopped:
            raise BusyError(_STOPPED)
        if self.pending >= self._most:
            raise BusyError(
                f"{self.pending} requests of this kind are running or waiting, which is the limit: "
                "try again in a few seconds"
            )
        self.pending += 1
        try:
            return await self._run(request, work)
        finally:
            self.pending -= 1

    async def _run(self, request: Request, work: Callable[[], T]) -> T:
        cancellation = Cancellation()
        outcome: list[T] = []
        error: Exception | None = None

        def cancellable() -> T:
            with cancellation.applied():
                raise_if_cancelled()
                return work()

        async def watch() -> None:
            nonlocal error
            try:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
            except HTTPException as caught:
                # A body that no form holds was not read before: it may be too large, or stall.
                error = caught
            cancellation.cancel()
            # Ends the wait for a thread; work in a thread is waited for.
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            self.running[cancellation] = request
            try:
                outcome.append(await anyio.to_thread.run_sync(cancellable, limiter=self._threads))
            except Exception as caught:
                # Raised below: a task group would wrap it.
                error = error or caught
            finally:
                del self.running[cancellation]
            group.cancel_scope.cancel()
        if isinstance(error, Cancelled) and self._is_stopped:
            raise BusyError(_STOPPED)
        if error is not None:
            raise error
        if not outcome:
            raise Cancelled("the client closed the connection")
        return outcome[0]


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


@dataclass(frozen=True)
class Inference:
    """What the inference routes are made of.

    Attributes:
        app: App.
        sessions: Uploads that clients refer to; None where they are switched off.
        priority: Pauses background work while somebody waits for an answer.
        clicks: Queue of requests on one slice.
        heavy: Queue of requests on a volume or a whole slide.
        metrics: Latencies.
    """

    app: Any
    sessions: SessionStore | None
    priority: InteractivePriority
    clicks: WorkQueue
    heavy: WorkQueue
    metrics: Metrics

    async def run(self, request: Request, is_heavy: bool, work: Callable[[], Response]) -> Response:
        """Runs work in one of the queues, with background work paused meanwhile."""

        def prioritized() -> Response:
            with self.priority.interactive():
                return work()

        return await (self.heavy if is_heavy else self.clicks).run(request, prioritized)

    def checked(self, model: str, params: dict[str, Any], user: User) -> dict[str, Any]:
        """The request of a task."""
        params = with_label_points(params, self.app.labels)
        require_known("model", model, self.app.models, params)
        refuse_keys(params, _RESERVED, "use the query")
        if "label_tag" in params:
            require_label_tag(params["label_tag"])
        if params.get("save_label") and user.role < Role.ANNOTATOR:
            refuse(HTTPStatus.FORBIDDEN, f"save_label needs the role {Role.ANNOTATOR.monailabel_name}")
        return {**params, "model": model, "user": user.name}

    @contextmanager
    def opened(self, image: str, session_id: str, file: UploadFile | None) -> Iterator[dict[str, Any]]:
        """What a request says of its image: ``image``, an id or a path, and ``session``."""
        if session_id:
            if self.sessions is None:
                refuse(HTTPStatus.NOT_FOUND, "sessions are switched off here (MONAI_LABEL_SESSIONS)")
            session = self.sessions.require_session(session_id)
            yield {"image": str(session.image), "session": session.to_json()}
        elif file is not None and file.filename:
            with received(file) as (_, path):
                yield {"image": str(path)}
        else:
            yield {"image": self._known(image)}

    def infer(self, asked: Mapping[str, Any], on_slide: bool = False) -> dict[str, Any]:
        """Segments an image: path of the answer's file, and its ``params``."""
        result = (
            self.app.infer_wsi(dict(asked))
            if on_slide
            else infer_image(self.app.models, asked, self.app.datastore())
        )
        for stage, seconds in (result["params"].get("latencies") or {}).items():
            self.metrics.stages.labels(asked["model"], stage).observe(float(seconds))
        return result

    def _known(self, image: str) -> str:
        if not image:
            refuse(HTTPStatus.BAD_REQUEST, "No image is named: send ?image=<id>, a file or a session_id")
        # The app takes an absolute path for a file that was sent along.
        if not Path(image).is_absolute():
            try:
                if self.app.datastore().get_image_uri(image):
                    return image
            except (ValueError, KeyError):
                pass
        reason = f"there is no image {image!r} in the datastore: /datastore/ lists the ids"
        refuse(HTTPStatus.NOT_FOUND, reason)


routes = Routes(prefix="/infer", tags=["Infer"])
_Inference = Annotated[Inference, of_server("inference")]
_File = Annotated[UploadFile | None, File()]
_Text = Annotated[str, Form()]


@routes.get("/progress")
async def progress(user: AnyUser, inference: _Inference) -> Response:
    """Share that is done (0 to 1) of each of the user's segmentations that run or wait."""
    running = [*inference.heavy.running.items(), *inference.clicks.running.items()]
    listed = [
        {
            "model": request.path_params["model"],
            "image": request.query_params.get("image", ""),
            "done": round(work.progress, 3),
        }
        for work, request in running
        if request.scope["user"] == user
    ]
    return JSONResponse(listed)


async def _finding(
    user: AnyUser,
    inference: _Inference,
    request: Request,
    model: str,
    image: str = "",
    session_id: str = "",
    output: SlideOutput = SlideOutput.asap,
) -> Callable[..., Awaitable[Response]]:
    """Finds objects on a slide from the body of a request, and from the patch where one is sent along."""

    async def find(body: dict[str, Any], file: UploadFile | None = None) -> Response:
        region = _region(body)
        asked = {**region, **inference.checked(model, body.get("params") or {}, user), "output": output}

        def work() -> Response:
            with inference.opened(image, session_id, file) as own:
                result = inference.infer({**asked, **own}, on_slide=True)
            path = result["file"]
            if path is None or output is SlideOutput.json:
                _discard(path)
                return JSONResponse(result["params"])
            return file_response(path, temporary=True)

        return await inference.run(request, not any(asked.get(name) for name in _PROMPTS), work)

    return find


_Finding = Annotated[Callable[..., Awaitable[Response]], Depends(_finding)]


@routes.post("/wsi/{model}")
async def slide(find: _Finding, body: JsonBody) -> Response:
    """Finds objects on a slide: around the prompts, or everything in the region."""
    return await find(body)


@routes.post("/wsi_v2/{model}")
async def slide_upload(find: _Finding, file: _File = None, wsi: _Text = "{}") -> Response:
    """As ``/wsi``, on a patch that is sent along."""
    return await find(json_object(wsi, "wsi"), file)


@routes.post("/{model}")
async def image(
    user: AnyUser,
    inference: _Inference,
    request: Request,
    model: str,
    image: str = "",
    session_id: str = "",
    params: _Text = "{}",
    file: _File = None,
    label: _File = None,
    output: ImageOutput | None = None,
) -> Response:
    """Segments an image from the prompts in ``params``."""
    asked = inference.checked(model, json_object(params, "params"), user)
    is_heavy = inference.app.models[model].dimension == 3
    gzip = "gzip" in request.headers.get("accept-encoding", "")

    def work() -> Response:
        if output is ImageOutput.dicom_seg:
            return _answer_dicom_seg(inference, asked, image)
        with inference.opened(image, session_id, file) as own, ExitStack() as stack:
            if label is not None and label.filename:
                own[LABEL_FILE] = str(stack.enter_context(_received_label(label)))
            result = inference.infer({**asked, **own})
        return _image_response(result, output, gzip)

    return await inference.run(request, is_heavy, work)


def _region(body: Mapping[str, Any]) -> dict[str, Any]:
    """Region of a request on a slide."""
    try:
        return SlideRegion.model_validate(body).model_dump(exclude={"params"})
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        refuse(HTTPStatus.UNPROCESSABLE_ENTITY, f"wsi: {reasons}")


def _answer_dicom_seg(inference: Inference, asked: dict[str, Any], image: str) -> Response:
    """A DICOM segmentation of the series, where the datastore is a DICOM store."""
    store = inference.app.datastore()
    if not isinstance(store, DicomWebStore) or not image:
        refuse(HTTPStatus.BAD_REQUEST, "output=dicom_seg needs ?image=<series> and a DICOM store")
    with inference.opened(image, "", None) as own:
        result = inference.infer({**asked, **own, "result_extension": ".nii.gz"})
    names: Mapping[str, int] = result["params"]["label_names"]
    segments = asked.get("label_info") or [{"name": name, "idx": value} for name, value in names.items()]
    try:
        path = store.as_dicom_seg(image, Path(result["file"]), segments)
    finally:
        _discard(result["file"])
    return file_response(path, "application/dicom", temporary=True)


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
        return file_response(path, temporary=True)
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


def _discard(path: str | None) -> None:
    if path is not None:
        Path(path).unlink(missing_ok=True)
