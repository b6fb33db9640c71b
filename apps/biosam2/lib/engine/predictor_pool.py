"""The networks in service: one per device, loaded at the first use, shared by every task.

While nobody waits, a thread encodes the neighbours of the slice that is looked at.
"""

from __future__ import annotations

import atexit
import logging
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import torch
from cachetools import TTLCache

from lib.child_process import belongs_to_server
from lib.engine.builder import load_network
from lib.engine.checkpoints import Weights, candidates, sha256_of
from lib.engine.embeddings import EmbeddingFolder
from lib.engine.frames import CroppedFrames, FrameSequence
from lib.engine.model_versions import Versions
from lib.engine.network import EmbeddingCache
from lib.engine.openvino_export import convert_in_child
from lib.engine.openvino_parts import is_chosen, parts_folder
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import Cancellation, InteractivePriority, Runtime, resolve_device
from lib.errors import Cancelled, CheckpointError
from lib.settings import Settings
from lib.transforms.frames import Crop

logger = logging.getLogger(__name__)

# Viewers whose slices are encoded; the one that was heard of last comes first.
MOST_VIEWERS = 16
# Seconds for which a viewer has its share of the cache after a click, and viewers that are remembered.
_SHARE_S, _REMEMBERED = 600.0, 256
# A slice behind is as far as one ahead at this many times its distance.
_BEHIND = 2.5
_STOP_S = 5.0

Slice = tuple[Predictor, FrameSequence, int]


class Prefetcher:
    """One thread that fills the embedding cache while no request runs.

    Requests come first: nothing begins while one runs, and an encoding under way is dropped for a click on
    another slice. Each viewer has one list of wished slices, which its next one replaces.

    Args:
        neighbours: Slices that are encoded around the one that was clicked on; 0 for none.
        embeddings: Cache that is filled; neighbours take half of its budget at most.
        priority: Tells when no request runs.

    Attributes:
        encoded: Number of slices encoded so far.
        dropped: Number of encodings that a request stopped.
    """

    def __init__(self, neighbours: int, embeddings: EmbeddingCache, priority: InteractivePriority):
        self.encoded = self.dropped = 0
        self._neighbours = neighbours
        self._embeddings = embeddings
        self._priority = priority
        # Image, slice and direction of travel of each viewer.
        self._places: TTLCache[Hashable, tuple[str, int, int]] = TTLCache(_REMEMBERED, _SHARE_S)
        self._changed = threading.Condition()
        self._wishes: OrderedDict[Hashable, Iterator[Slice]] = OrderedDict()
        # Slices of the encoding under way.
        self._current: tuple[set[Hashable], Cancellation] | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def pending(self) -> int:
        """Viewers with slices that are still to be encoded."""
        return len(self._wishes)

    def opened(self, viewer: Hashable, opening: Callable[[], Slice]) -> None:
        """Encodes the slice that is likely asked for first.

        Args:
            viewer: Name of the client.
            opening: Opens the image in the background, and chooses the slice.
        """
        if self._neighbours:
            self._wish(viewer, (opening() for _ in range(1)))

    def looked_at(
        self,
        viewer: Hashable,
        predictor: Predictor,
        frames: FrameSequence,
        index: int,
        crop: Crop | None = None,
    ) -> None:
        """Encodes the neighbours of a slice: nearest first, more of them in the direction of travel.

        Args:
            viewer: Name of the client.
            predictor: Network that answered.
            frames: Slices of the image.
            index: Slice that was clicked on.
            crop: Window in which the object was looked at again; the neighbours' are encoded too.
        """
        features = predictor.kept(frames, index) if self._neighbours else None
        if features is None:
            return
        with self._changed:
            image, before, direction = self._places.get(viewer, ("", 0, 0))
            direction = (index - before or direction) if image == frames.digest else 0
            self._places[viewer] = frames.digest, index, direction
            room = self._embeddings.budget // 2 // features.nbytes // len(self._places)
        looks = [frames] if crop is None else [frames, CroppedFrames(frames, crop)]
        order = _order(index, len(frames), direction)[: min(self._neighbours, room // len(looks))]
        self._wish(viewer, ((predictor, look, neighbour) for neighbour in order for look in looks))

    def give_way(self, frames: FrameSequence, indices: Collection[int]) -> None:
        """Drops the encoding under way, unless it is that of a slice which the calling request needs.

        Args:
            frames: Slices of the request's image.
            indices: Slices with prompts.
        """
        with self._changed:
            if self._current is None:
                return
            keys, cancellation = self._current
            if keys.isdisjoint((frames.digest, frames.key(index)) for index in indices):
                cancellation.cancel()

    def stop(self) -> None:
        """Drops all slices, and returns when the thread has ended."""
        with self._changed:
            self._stopped = True
            self._wishes.clear()
            if self._current is not None:
                self._current[1].cancel()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _wish(self, viewer: Hashable, slices: Iterator[Slice]) -> None:
        with self._changed:
            if self._stopped:
                return
            self._wishes[viewer] = slices
            self._wishes.move_to_end(viewer)
            if len(self._wishes) > MOST_VIEWERS:
                self._wishes.popitem(last=False)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="prefetching", daemon=True)
                self._thread.start()
                # A thread inside torch or OpenVINO while the interpreter ends would crash the process.
                atexit.register(self.stop)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wishes or self._stopped)
            self._priority.give_way()
            with self._changed:
                if self._stopped:
                    return
                if not self._wishes:
                    continue
                viewer, slices = next(reversed(self._wishes.items()))
            rest = self._encode_first(slices)
            with self._changed:
                self._current = None
                if self._wishes.get(viewer) is not slices:
                    continue
                if rest is None:
                    del self._wishes[viewer]
                else:
                    self._wishes[viewer] = rest

    def _encode_first(self, slices: Iterator[Slice]) -> Iterator[Slice] | None:
        """Encodes the first of some slices, on a GPU a few; what is left, None where there is nothing."""
        try:
            first = next(slices, None)
            if first is None:
                return None
            predictor = first[0]
            some = [first, *islice(slices, predictor.at_once - 1)]
            missing = [each for each in some if predictor.kept(*each[1:]) is None]
            return slices if not missing or self._encode(predictor, missing) else chain(missing, slices)
        except Exception as error:
            # Libraries raise many kinds, and the thread has to go on for other viewers.
            logger.warning("Slices are not encoded before they are asked for: %s", error)
            return None

    def _encode(self, predictor: Predictor, some: Sequence[Slice]) -> bool:
        """Whether slices of one viewer are in the cache now; False where a request came between."""
        cancellation = Cancellation()
        with self._changed:
            self._current = {_slice_key(frames, index) for _, frames, index in some}, cancellation
        if self._priority.is_busy:
            return False
        try:
            with cancellation.applied():
                predictor.encode_ahead([(frames, index) for _, frames, index in some])
        except Cancelled:
            self.dropped += 1
            return False
        self.encoded += len(some)
        return True


def _slice_key(frames: FrameSequence, index: int) -> Hashable:
    """Image and slice, the same for a window in it."""
    whole = frames.frames if isinstance(frames, CroppedFrames) else frames
    return whole.digest, whole.key(index)


def _order(index: int, count: int, direction: int) -> list[int]:
    """All other slices, nearest first; those behind as if they were farther away."""

    def distance(other: int) -> tuple[float, int]:
        offset = other - index
        return abs(offset) * (_BEHIND if offset * direction < 0 else 1.0), -offset

    return sorted((other for other in range(count) if other != index), key=distance)


_MIB = 1 << 20
EMBEDDINGS = "embeddings"
# The name, for going back, of the weights that were there before any version.
BASE = "base"


class PredictorPool:
    """Predictors by device. Constructing one reads nothing and loads nothing.

    Args:
        settings: App settings (`--conf`).
        model_dir: Folder of ``registry.yaml`` and the weights.
    """

    def __init__(self, settings: Settings, model_dir: Path):
        self.registry = Registry(model_dir)
        self._settings = settings
        disk_bytes = int(settings.embedding_disk_gb * 1e9)
        disk = EmbeddingFolder(model_dir / EMBEDDINGS, disk_bytes) if disk_bytes else None
        self._embeddings = EmbeddingCache(settings.embedding_cache_mb * _MIB, disk)
        self.versions = Versions(model_dir, settings.keep_versions)
        self.priority = InteractivePriority(model_dir)
        self.prefetcher = Prefetcher(settings.prefetch, self._embeddings, self.priority)
        self._loaded: dict[torch.device, tuple[Predictor, Weights]] = {}
        self._published: dict[torch.device, str | None] = {}
        self._served: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def embedding_bytes(self) -> int:
        """Memory of the kept image embeddings in bytes."""
        return self._embeddings.used

    @property
    def disk(self) -> EmbeddingFolder | None:
        """Embeddings that were prepared; None where none are kept on disk."""
        return self._embeddings.disk

    @property
    def encoded(self) -> int:
        """Number of frames that networks have encoded."""
        return self._embeddings.encoded

    def get(self, device: str | None = None) -> Predictor:
        """The predictor of a device; see ``served``."""
        return self.served(device)[0]

    def weights(self, device: str | None = None) -> Weights:
        """The weights in service on a device; see ``served``."""
        return self.served(device)[1]

    def served(self, device: str | None = None) -> tuple[Predictor, Weights]:
        """The predictor of a device, and its weights: of two calls, each may find others in service.

        They are loaded now if they are not yet, or if others were published since.

        Args:
            device: Device of the request; None or empty for the app's own.

        Raises:
            DeviceError: for a device that does not exist here.
            CheckpointError: when no weights can be loaded, the bundled ones included.
        """
        target = resolve_device(device or self._settings.device)
        with self._lock:
            published = self.versions.current()
            if target not in self._loaded or self._published[target] != published:
                self._loaded[target] = self._load(target)
                self._published[target] = published
            return self._loaded[target]

    def roll_back(self, version: str) -> None:
        """Serves a published version from now on, or the weights that were there before all of them.

        Args:
            version: Name of the version, or ``base``.

        Raises:
            CheckpointError: no version has this name.
        """
        self.versions.switch(None if version == BASE else version)

    def status(self) -> dict[str, dict[str, str]]:
        """Which weights are in service and why, by device, and which were refused and why."""
        return {"served": dict(self._served), "refused": dict(self._refused)}

    def _load(self, device: torch.device) -> tuple[Predictor, Weights]:
        if self._settings.threads:
            torch.set_num_threads(self._settings.threads)
        runtime = Runtime(device, self._settings.precision)
        for weights in candidates(self._settings, self.registry, runtime.type):
            try:
                return self._predictor(weights, runtime), weights
            except CheckpointError as error:
                self._refused[weights.name] = str(error)
                logger.error("Weights refused, going on with the next: %s", error)
        raise CheckpointError(
            "no weights could be loaded: " + "; ".join(self._refused.values() or ["none is present"])
        )

    def _predictor(self, weights: Weights, runtime: Runtime) -> Predictor:
        network = load_network(weights, self.registry, runtime.type)
        network.freeze(runtime.dtype)
        # Loading has checked a known sha256 already, and a large file takes a second to hash.
        version = weights.sha256 or sha256_of(weights.path)
        predictor = Predictor(network, runtime, self._embeddings, weights.name, version)
        precision = str(runtime.dtype).removeprefix("torch.")
        summary = f"{weights.name} ({weights.reason}), {predictor.image_size} px, {precision}"
        self._served[str(runtime.device)] = summary
        logger.info("Serving %s on %s", summary, runtime.device)
        if self._settings.runtime == "compile":
            predictor.use_compiler()
        if openvino_dtype(self._settings, runtime) is not None:
            folder = parts_folder(weights, version, predictor.image_size, runtime.dtype)
            arguments = (predictor, weights, folder, summary)
            if folder.exists():
                # At once, and torch's first run with the memory that it takes is spared.
                self._use_openvino(*arguments)
            else:
                threading.Thread(
                    target=self._use_openvino, args=arguments, name="openvino", daemon=True
                ).start()
        return predictor

    def _use_openvino(self, predictor: Predictor, weights: Weights, folder: Path, summary: str) -> None:
        """Converts the network where it was not yet, and goes over from torch to OpenVINO."""
        device = str(predictor.runtime.device)
        try:
            if not folder.exists():
                logger.info("Converting %s for OpenVINO; torch computes meanwhile", weights.name)
                convert_in_child(weights, self.registry.folder, predictor.runtime.dtype, folder)
            predictor.use_openvino(folder, self._settings.threads)
        except Exception as error:
            # OpenVINO, the disk and the conversion raise many kinds, and torch serves with all of them.
            logger.warning("OpenVINO is not used for %s, torch goes on: %s", weights.name, error)
            shutil.rmtree(folder, ignore_errors=True)
            return
        logger.info("OpenVINO computes %s on %s", weights.name, device)
        if self._served.get(device) == summary:
            self._served[device] = f"{summary}, OpenVINO"


def openvino_dtype(settings: Settings, runtime: Runtime | None = None) -> torch.dtype | None:
    """Number format in which OpenVINO computes a network of the server; None where torch does.

    Args:
        settings: App settings (`--conf`).
        runtime: Device; the app's own by default.
    """
    runtime = runtime or Runtime(resolve_device(settings.device), settings.precision)
    # A program that uses the engine for a moment would wait for a conversion.
    chosen = belongs_to_server() and is_chosen(settings.runtime, runtime.type)
    return runtime.dtype if chosen else None
