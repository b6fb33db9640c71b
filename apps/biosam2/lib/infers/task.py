"""Base of the tasks, and the run of one on an image: from a request to a mask file and its parameters."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from lib.datastores.label_entries import AUTOMATIC
from lib.datastores.local import image_path
from lib.engine.interactive import AnswerCache, InteractiveSegmenter
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool, Slice
from lib.engine.runtime import available_devices, raise_if_cancelled, resolve_device
from lib.errors import PromptError
from lib.images.cache import ImageCache
from lib.images.file_formats import split_ending
from lib.images.medical_image import MedicalImage
from lib.images.writing import PICTURE_EXTENSIONS, VOLUME_EXTENSIONS, known_extension, write_mask
from lib.infers.label_merging import Part, require_replaceable, save_automatic_label, save_merged
from lib.labels.labelled_slices import AXIS
from lib.labels.reading import read_labels
from lib.metrics.calibration import IDENTITY, Calibration
from lib.prompts.fields import flag, sequence, shown
from lib.prompts.parsing import Mode, parse_prompts
from lib.prompts.types import PromptSet
from lib.prompts.views import ViewGrid, read_view
from lib.settings import Settings, Zoom
from lib.transforms.frames import FrameStack
from lib.transforms.windowing import IntensityWindow

T = TypeVar("T")

# Key under which the server puts the path of an uploaded label map.
LABEL_FILE = "label_file"
# Name of the task that prepares embeddings.
EMBED = "embed"
DEFAULT_TAG = "original"
# Options of a request that are true or false.
_FLAGS = ("largest_component", "fill_holes", "result_compress")


@dataclass(frozen=True)
class Services:
    """What the app builds once and every task uses.

    Attributes:
        settings: App settings (`--conf`).
        engines: Networks.
        images: Cache of opened images.
        labels: Names that viewers offer.
        answers: Earlier answers, which corrections change.
    """

    settings: Settings
    engines: PredictorPool
    images: ImageCache
    labels: tuple[str, ...]
    answers: AnswerCache = field(default_factory=AnswerCache)


@dataclass(frozen=True)
class PromptedImage:
    """One request, opened and understood.

    Attributes:
        request: Request with the defaults of the task.
        image: Image.
        window: Intensities of the image that become levels.
        frames: Slices of the image, or of its view.
        prompts: Prompts of the request.
        segmenter: Answers the prompts of one slice.
        extension: File type of the answer.
        is_started: Whether a label map was uploaded.
        version: Version of the weights; None for those that no training published.
        view: Grid of the frames and prompts; None: the image's own.
    """

    request: Mapping[str, Any]
    image: MedicalImage
    window: IntensityWindow
    frames: FrameStack
    prompts: PromptSet
    segmenter: InteractiveSegmenter
    extension: str
    is_started: bool = False
    version: str | None = None
    view: ViewGrid | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K) of the grid of the frames."""
        return self.view.shape if self.view else self.image.shape


@dataclass
class TaskResult:
    """The answer before it is written.

    Attributes:
        labels: uint8 (I, J, K) on the grid of the frames, 0 where nothing is.
        scores: Confidence per label name, 0 to 1.
        params: facts that only one kind of task knows.
    """

    labels: NDArray[np.uint8]
    scores: dict[str, float]
    params: dict[str, Any] = field(default_factory=dict)


class Stopwatch:
    """Measures the stages of a request under the names of MONAI Label's ``latencies``."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.latencies: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Notes the seconds since the last one."""
        now = time.perf_counter()
        self.latencies[name] = round(now - self._last, 4)
        self.latencies["total"] = round(now - self._start, 4)
        self._last = now


class ImageTask(InferTask):
    """A task on the image's own grid.

    Args:
        services: Parts that the tasks share.
        type: Type that viewers show.
        dimension: 2 for one slice, 3 for a volume.
        labels: Names that this task itself offers, with their values.
        description: Description for people.
    """

    def __init__(
        self,
        services: Services,
        type: InferType,
        dimension: int,
        labels: Sequence[str] | Mapping[str, int],
        description: str,
    ):
        settings = services.settings
        super().__init__(
            type=type,
            labels=labels,
            dimension=dimension,
            description=description,
            config={
                "device": devices(settings.device),
                "largest_component": settings.largest_component,
                "fill_holes": settings.fill_holes,
            },
        )
        self._services = services

    def is_valid(self) -> bool:
        """Always: weights are looked for when a request needs them."""
        return True

    def info(self) -> dict[str, Any]:
        """What ``/info/`` shows, with the weights in service and why they are."""
        return {**super().info(), "weights": self._services.engines.status()}

    def completed(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A request with the task's own options where it says nothing; of a list of choices the first.

        Raises:
            PromptError: An option is neither true nor false.
        """
        own = {name: value[0] if isinstance(value, list) else value for name, value in self.config().items()}
        said = {key: value for key, value in request.items() if value is not None}
        full = {"result_compress": False, **own, **said}
        full.update({name: flag(full[name], name) for name in _FLAGS})
        return full

    def opened(self, path: Path) -> MedicalImage:
        """The image of a file, from memory where it has been opened before."""
        return self._services.images.get(path)

    def calibration(self, version: str | None) -> Calibration:
        """The calibration of the confidence that a version came with; the identity for other weights."""
        facts = self._services.engines.versions.read(version).calibration if version else {}
        return Calibration.from_json(facts) if facts else IDENTITY


class EmbedTask(ImageTask):
    """Prepares the embeddings of an image's slices on disk; a batch runs it, and no viewer shows it.

    Args:
        services: Parts that the tasks share.
    """

    def __init__(self, services: Services):
        super().__init__(services, InferType.OTHERS, 3, {}, "Embeddings on disk")

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Encodes the slices that are not on disk.

        Args:
            request: ``image``, its path; ``axis``, ``window`` and ``device`` as those of clicks; ``since``,
                time from which on used embeddings stay.

        Returns:
            None, as there is no file; number of ``slices``, of those ``encoded`` now, and a ``summary``.

        Raises:
            BioSam2Error: The image cannot be opened, or the disk is full.
        """
        request = self.completed(request)
        image = self.opened(request["image"])
        axis = choice(request, "axis", AXIS, (0, 1, 2))
        frames = FrameStack(image.array, axis, image.window(request.get("window")), image.digest)
        predictor, encoded = self._services.engines.get(request["device"]), 0
        for index in range(len(frames)):
            self._services.engines.priority.give_way()
            raise_if_cancelled()
            encoded += predictor.prepare(frames, index, request["since"])
        summary = f"{encoded} of {len(frames)} slices encoded"
        return None, {"slices": len(frames), "encoded": encoded, "summary": summary}


class SegmentTask(ImageTask):
    """A task that answers prompts with a mask on the image's own grid.

    Args:
        services: Parts that the tasks share.
        type: Type that viewers show.
        dimension: 2 for one slice, 3 for a volume.
        mode: Way in which the prompts of a request are read.
        labels: Names that this task itself offers, with their values.
        description: Description for people.
    """

    def __init__(
        self,
        services: Services,
        type: InferType,
        dimension: int,
        mode: Mode,
        labels: Sequence[str] | Mapping[str, int],
        description: str,
    ):
        super().__init__(services, type, dimension, labels, description)
        self._mode = mode

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answers a request.

        Args:
            request: The client's ``params`` and the path of the image.

        Returns:
            The path of the answer's file, and what goes into the answer's ``params``.

        Raises:
            BioSam2Error: The request cannot be answered; the message says why.
        """
        watch = Stopwatch()
        prompted = self._open(self.completed(request))
        watch.lap("pre")
        slices = {index for item in prompted.prompts.objects for index in prompted.prompts.frames(item)}
        self._services.engines.prefetcher.give_way(prompted.frames, slices)
        result = self.segment(prompted)
        watch.lap("infer")
        path = self._write(prompted, result)
        watch.lap("post")
        return str(path), self._params(prompted, result, watch.latencies)

    @abstractmethod
    def segment(self, prompted: PromptedImage) -> TaskResult:
        """Segments the objects of a prompted."""

    def _open(self, request: dict[str, Any]) -> PromptedImage:
        image = self._services.images.get(request["image"])
        view = read_view(request, image.array.shape) if request.get("view") is not None else None
        window = image.window(request.get("window"))
        label_map = _label_map(request, image, view)
        prompts = parse_prompts(
            request,
            shape=view.shape if view else image.shape,
            affine=None if view else image.affine,
            is_2d=image.is_2d,
            mode=self._mode,
            labels=self._services.labels,
            label_map=label_map,
        )
        extension = answer_extension(request, image)
        array, digest = (
            (view.image(image.array), view.digest(image.digest)) if view else (image.array, image.digest)
        )
        predictor, weights = self._services.engines.served(request["device"])
        return PromptedImage(
            request=request,
            image=image,
            window=window,
            frames=FrameStack(array, prompts.axis, window, digest),
            prompts=prompts,
            segmenter=self._segmenter(request, predictor),
            extension=extension,
            is_started=label_map is not None,
            version=weights.version,
            view=view,
        )

    def _segmenter(self, request: Mapping[str, Any], predictor: Predictor) -> InteractiveSegmenter:
        settings = self._services.settings
        answers = self._services.answers if settings.local_corrections else None
        client = str(request.get("client_id"))
        return InteractiveSegmenter(
            predictor, answers, client, choice(request, "zoom", settings.zoom, get_args(Zoom))
        )

    @staticmethod
    def _write(prompted: PromptedImage, result: TaskResult) -> Path:
        compress, image, view = prompted.request["result_compress"], prompted.image, prompted.view
        labels = view.volume(result.labels, image.shape) if view else result.labels
        return write_mask(labels, image, prompted.extension, compress, prompted.prompts.label_names)

    @staticmethod
    def _params(prompted: PromptedImage, result: TaskResult, latencies: dict[str, float]) -> dict[str, Any]:
        return {
            "label_names": prompted.prompts.label_names,
            "score": min(result.scores.values()),
            "scores": result.scores,
            "model": prompted.segmenter.predictor.name,
            "window": [prompted.window.low, prompted.window.high],
            "latencies": latencies,
            **result.params,
        }


def infer(tasks: Mapping[str, InferTask], request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
    """Answers MONAI Label's ``infer``.

    MONAI Label's own code would take an id for a path where the working folder has a file of that name.

    Args:
        tasks: Tasks by name.
        request: ``model``; ``image``, an id of the datastore or the absolute path of a client's file;
            ``save_label`` and ``label_tag``; and what the task reads. The answer of an interactive task is
            merged into the label that is there: its objects are replaced, the others stay.
        datastore: Datastore of the images.

    Returns:
        ``file``, the path of the result or None; ``label``, the id of the saved label or the same path;
        ``tag``; and ``params``.

    Raises:
        BioSam2Error: With a reason.
    """
    task = tasks.get(request.get("model", ""))
    if task is None:
        raise PromptError(f"Unknown model {request.get('model')!r} (available: {', '.join(tasks)})")
    image, tag = request["image"], str(request.get("label_tag") or DEFAULT_TAG)
    is_file = Path(image).is_absolute()
    saves = bool(request.get("save_label")) and not is_file
    if saves and not isinstance(task, SegmentTask):
        require_replaceable(datastore, image, tag)
    path = image if is_file else str(image_path(datastore, image))
    file, params = task({**request, "image": path, "description": task.description})
    label = file
    if saves and file:
        user = {"user": request["user"]} if "user" in request else {}
        info = {"model": request["model"], "params": params, AUTOMATIC: True, **user}
        if isinstance(task, SegmentTask):
            opened = task.opened(Path(path))
            part = _part(request, params, opened)
            label = save_merged(datastore, opened, image, Path(file), tag, info, part)
        else:
            label = save_automatic_label(datastore, image, Path(file), tag, info)
    return {"file": file, "label": label, "tag": tag, "params": params}


def _part(request: Mapping[str, Any], params: Mapping[str, Any], image: MedicalImage) -> Part:
    """The part of an image that an answer is about: of a 2-D task the voxels of its slice or view."""
    if "slice" not in params:
        return None
    view = read_view(request, image.array.shape)
    axis, number = params["axis"], params["slice"]
    return view.slice_voxels(axis, number, image.shape) if view else (axis, number)


def devices(preferred: str) -> list[str]:
    """The devices that a request may name; viewers choose the first when nobody chooses."""
    first = str(resolve_device(preferred))
    return [first, *(name for name in available_devices() if name != first)]


def choice(request: Mapping[str, Any], name: str, default: T, allowed: Sequence[T]) -> T:
    """An option of a request that is one of a few words.

    Raises:
        PromptError: It is another value.
    """
    value = request.get(name, default)
    if value not in allowed:
        raise PromptError(f"Unknown {name} {shown(value)} (available: {', '.join(map(str, allowed))})")
    return next(word for word in allowed if word == value)


def _label_map(
    request: Mapping[str, Any], image: MedicalImage, view: ViewGrid | None
) -> tuple[NDArray, Mapping[int, str]] | None:
    """The label map that a client uploaded, on the grid of the prompts, and the name of each value."""
    path = request.get(LABEL_FILE)
    if path is None:
        return None
    info = [
        {"name": item.get("name"), "idx": item.get("idx", item.get("id"))}
        for item in sequence(request.get("label_info"), "label_info", "a list of objects with name and id")
        if isinstance(item, Mapping)
    ]
    found = read_labels(Path(path), image, info)
    return view.labels(found.array) if view else found.array, found.names


def answer_extension(request: Mapping[str, Any], image: MedicalImage) -> str:
    """The file type of an answer: the one asked for, else the image's, else NIfTI.

    Raises:
        PromptError: A mask cannot be written in the type that was asked for.
    """
    asked = request.get("result_extension")
    if asked in (None, ""):
        ending = split_ending(image.path.name)[1].lower()
        known = VOLUME_EXTENSIONS + (PICTURE_EXTENSIONS if image.shape[2] == 1 else ())
        asked = ending if ending in known else ".nii.gz"
    return known_extension(asked, image.shape[2])


def open_beforehand(
    engines: PredictorPool, images: ImageCache, datastore: Datastore, user: str, image_id: str
) -> None:
    """Opens an image in the background, and encodes the middle slice: viewers begin there.

    Args:
        engines: Networks.
        images: Cache that takes the image.
        datastore: Datastore of the image.
        user: Name of the person who will click.
        image_id: Image id.
    """

    def opening() -> Slice:
        image = images.get(image_path(datastore, image_id))
        frames = FrameStack(image.array, AXIS, image.window(), image.digest)
        return engines.get(), frames, len(frames) // 2

    engines.prefetcher.opened((user, image_id), opening)
