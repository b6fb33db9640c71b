"""Puts the app's routes, middleware and error answers into MONAI Label's FastAPI application.

What a client sent is refused with FastAPI's ``HTTPException`` (400, 403, 404, 409 or 422), whose text names
the value, the limit and the remedy; ``error_responses`` answers the errors of the app itself.
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI
from monailabel.config import settings as monailabel_settings
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.utils.async_tasks.utils import processes
from starlette.middleware import Middleware

from lib.batch.runner import BatchRunner, ImageWork
from lib.engine.predictor_pool import PredictorPool
from lib.engine.runtime import release_free_memory_regularly, return_large_blocks
from lib.images.cache import ImageCache
from lib.infers.task import open_beforehand
from lib.server import active_learning, batch, datastore, infer, pages, proxy, sessions, status, training
from lib.server.api_keys import ApiKeys
from lib.server.checks import Checks
from lib.server.error_responses import ErrorResponses
from lib.server.infer import CLICK_QUEUE, CLICK_WORKERS, HEAVY_WORKERS, Inference, WorkQueue
from lib.server.middleware import (
    AccessMiddleware,
    Authenticator,
    OriginMiddleware,
    RequestMiddleware,
    UploadMiddleware,
    for_requests,
    log_request_ids,
)
from lib.server.sessions import SessionStore
from lib.server.status import InfoPage, Metrics
from lib.server.tokens import TokenVerifier, read_public_key
from lib.settings import Settings
from lib.trainers.task import FineTuneTask

logger = logging.getLogger(__name__)

# In the order in which they are looked up: a path of OHIF or of the proxy may be anything.
ROUTES = (
    status.routes,
    pages.signing_in,
    infer.routes,
    batch.routes,
    training.routes,
    active_learning.routes,
    datastore.routes,
    sessions.routes,
    proxy.routes,
    pages.documents,
)
# Seconds without a byte of a request's body.
STALL_S = 30.0
# Each step of a request waits for the threads that segment to leave the interpreter, for Python's own 5 ms at
# most. With 20 clients and a propagation the 95th percentile of a click fell to half (make bench-clients).
SWITCH_INTERVAL_S = 0.0005
# Seconds between two times at which free memory goes back to the system, which takes about 20 ms.
FREE_EVERY_S = 60.0


@dataclass(frozen=True)
class AppParts:
    """What the routes are made of.

    Attributes:
        app: The app.
        settings: Options of the app.
        engines: Networks in service.
        images: Cache of opened images.
        trainers: Train tasks by name.
        strategies: Strategies by name.
        scoring_methods: Scoring methods by name.
    """

    app: Any
    settings: Settings
    engines: PredictorPool
    images: ImageCache
    trainers: dict[str, FineTuneTask]
    strategies: dict[str, Strategy]
    scoring_methods: Mapping[str, ScoringMethod]


def install(server: FastAPI, parts: AppParts) -> SessionStore | None:
    """Replaces MONAI Label's routes and middleware with the app's own, which know the same addresses.

    Called while the server starts, before the first request. None of MONAI Label's routes stays: some open
    any file, run uploaded code, or compute in the event loop.

    Args:
        server: MONAI Label's FastAPI application.
        parts: What the routes are made of.

    Returns:
        The sessions, for the app's cleanup job; None where they are switched off.

    Raises:
        SettingsError: The file of API keys or the public key cannot be read.
    """
    authenticator, sessions = make_authenticator(parts.settings), open_sessions(parts.settings)
    metrics = _set_state(server, parts, authenticator, sessions)
    server.router.routes.clear()
    for routes in ROUTES:
        server.include_router(routes)
    ErrorResponses(_private_folders(parts)).add_to(server)
    origins = (*parts.settings.allowed_origins, *map(str, monailabel_settings.MONAI_LABEL_CORS_ORIGINS))
    server.user_middleware = [
        Middleware(OriginMiddleware, allowed_origins=origins, allowed_hosts=parts.settings.allowed_hosts),
        Middleware(RequestMiddleware, requests=metrics.requests, seconds=metrics.seconds),
        Middleware(AccessMiddleware, authenticator=authenticator),
        Middleware(UploadMiddleware, max_bytes=parts.settings.max_upload_mb << 20, stall_s=STALL_S),
    ]
    # MONAI Label's stack was built when the server began to start.
    server.middleware_stack = for_requests(server.build_middleware_stack(), server.router)
    log_request_ids()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return_large_blocks()
    release_free_memory_regularly(parts.engines.priority, FREE_EVERY_S)
    if not authenticator.is_on:
        logger.warning("Access control is off: everybody who reaches this server is an administrator")
    return sessions


def make_authenticator(settings: Settings) -> Authenticator:
    """Access control as the settings want it.

    Raises:
        SettingsError: The file of API keys or the public key cannot be read.
    """
    keys = ApiKeys(settings.api_keys) if settings.api_keys else None
    if not monailabel_settings.MONAI_LABEL_AUTH_ENABLE:
        return Authenticator(keys, None)
    path = settings.auth_public_key
    return Authenticator(keys, TokenVerifier(read_public_key(path) if path else None))


def open_sessions(settings: Settings) -> SessionStore | None:
    """The sessions where MONAI Label's settings want them; None where they are switched off."""
    if not monailabel_settings.MONAI_LABEL_SESSIONS:
        return None
    path = monailabel_settings.MONAI_LABEL_SESSION_PATH.strip()
    root = Path(path) if path else Path.home() / ".cache" / "monailabel" / "sessions"
    store = SessionStore(root, monailabel_settings.MONAI_LABEL_SESSION_EXPIRY, settings.max_upload_mb << 20)
    store.remove_expired()
    return store


def _set_state(
    server: FastAPI, parts: AppParts, authenticator: Authenticator, sessions: SessionStore | None
) -> Metrics:
    """Gives the routes what they are made of, under the names that they use; the metrics."""
    app, engines, store = parts.app, parts.engines, parts.app.datastore()
    clicks, heavy = (
        WorkQueue(CLICK_WORKERS, CLICK_QUEUE),
        WorkQueue(HEAVY_WORKERS, parts.settings.heavy_queue),
    )
    _stop_with_server(clicks, heavy)
    metrics = _metrics(parts, clicks, heavy)
    open_image = partial(open_beforehand, engines, parts.images, store)
    state: dict[str, Any] = {
        "authenticator": authenticator,
        "batches": BatchRunner(ImageWork(app.infer, store, engines.priority).in_turn, store),
        "checks": Checks(store, parts.images),
        "engines": engines,
        "inference": Inference(app, sessions, engines.priority, clicks, heavy, metrics),
        "info_page": InfoPage(app, engines, parts.trainers),
        "log_file": Path(app.app_dir) / "logs" / "app.log",
        "metrics": metrics,
        "models": app.models,
        "ohif_companion": parts.settings.ohif_companion,
        "on_label": app.on_save_label,
        "on_opening": open_image,
        "scoring_methods": parts.scoring_methods,
        "sessions": sessions,
        "strategies": parts.strategies,
        "trainers": parts.trainers,
    }
    for name, value in state.items():
        setattr(server.state, name, value)
    return metrics


def _stop_with_server(*queues: WorkQueue) -> None:
    """Stops requests when the process is told to end: the web server waits for them, and some take long."""
    if threading.current_thread() is not threading.main_thread():
        return  # Python passes signals to the main thread alone; no web server listens to them here

    def chain(number: signal.Signals) -> None:
        of_web_server = signal.getsignal(number)
        if not callable(of_web_server):
            return

        def stop(received: int, frame: FrameType | None) -> None:
            for queue in queues:
                queue.stop()
            of_web_server(received, frame)

        signal.signal(number, stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        chain(number)


def _metrics(parts: AppParts, clicks: WorkQueue, heavy: WorkQueue) -> Metrics:
    prefetcher = parts.engines.prefetcher
    measured = {
        "clicks_pending": ("Requests on one slice, running or waiting", lambda: clicks.pending),
        "heavy_pending": ("Volume and slide requests, running or waiting", lambda: heavy.pending),
        "image_cache_bytes": ("Memory of opened images", lambda: parts.images.nbytes),
        "embedding_cache_bytes": ("Memory of image embeddings", lambda: parts.engines.embedding_bytes),
        "slices_encoded": ("Slices that the network encoded", lambda: parts.engines.encoded),
        "prefetched": ("Slices of them that were encoded beforehand", lambda: prefetcher.encoded),
        "prefetch_dropped": ("Encodings that a click stopped", lambda: prefetcher.dropped),
        "prefetch_pending": ("Clients with slices to encode beforehand", lambda: prefetcher.pending),
        "embeddings_loaded": (
            "Embeddings read from disk",
            lambda: parts.engines.disk.loaded if parts.engines.disk else 0,
        ),
        "training_running": ("Trainings that are running", lambda: len(processes("train"))),
        "scoring_running": ("Scorings that are running", lambda: len(processes("scoring"))),
    }
    return Metrics([(f"biosam2_{name}", about, value) for name, (about, value) in measured.items()])


def _private_folders(parts: AppParts) -> list[str]:
    """Folders whose paths no answer shows."""
    home = str(Path.home())
    folders = [tempfile.gettempdir(), str(parts.engines.registry.folder), parts.app.app_dir, str(Path.cwd())]
    return [*folders, parts.app.studies, monailabel_settings.MONAI_LABEL_SESSION_PATH, home]
