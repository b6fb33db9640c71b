"""The app's options (``--conf name value``): name, type, default, range and description."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lib.errors import SettingsError

logger = logging.getLogger(__name__)

# SAM 2's encoder halves the image five times, so a side must be a multiple of 2**5.
IMAGE_SIZE_STEP = 32
IMAGE_SIZE_RANGE = (64, 2048)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
RuntimeName = Literal["auto", "torch", "openvino", "compile"]
Zoom = Literal["off", "boxes", "all"]
MemoryPolicy = Literal["fifo", "confidence", "pruned"]
StrategyName = Literal["random", "first", "last", "diversity", "uncertainty", "hybrid", "least_confident"]
# Characters of a label's name, which goes back to the client, in answers and in error messages.
MAX_NAME = 200
# Fields of requests that hold lists themselves, so that a label of that name could not be told from them; and
# the prefix of the options of MONAI Label's writer, such as result_extension.
PROMPT_KEYS = frozenset(
    {"annotations", "box", "boxes", "label_points", "lassos", "points", "roi", "scribbles"}
)
RESULT_PREFIX = "result_"
STRATEGIES: tuple[str, ...] = get_args(StrategyName)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _none_if_empty(value: Any) -> Any:
    return value or None


def _names(value: Any) -> Any:
    """Text with commas as a tuple of distinct, non-empty names."""
    if not isinstance(value, str):
        return value
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


def _label_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuses labels that no request can name: viewers send the points of a label under its name."""
    for name in names:
        is_field = name in PROMPT_KEYS or name.startswith(RESULT_PREFIX)
        if is_field or len(name) > MAX_NAME or not name.isprintable():
            raise ValueError(f"{name[:MAX_NAME]!r} cannot be a label")
    return names


def _expand_home(path: Path | None) -> Path | None:
    return path.expanduser() if path else None


_Origin = Annotated[str, Field(pattern=r"^https?://[^/\s*]+$")]
_Text = Annotated[str | None, BeforeValidator(_none_if_empty)]
_Path = Annotated[
    Path | None, AfterValidator(lambda path: path and path.expanduser()), BeforeValidator(_none_if_empty)
]
_Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
_Side = Annotated[
    int | None,
    Field(multiple_of=IMAGE_SIZE_STEP, ge=IMAGE_SIZE_RANGE[0], le=IMAGE_SIZE_RANGE[1]),
    BeforeValidator(_none_if_empty),
]
_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]


def _option(default: Any, allowed: str, description: str, **constraints: Any) -> Any:
    """A field whose error message says what is allowed, in words."""
    extra: Any = {"range": allowed}
    return Field(default=default, description=description, json_schema_extra=extra, **constraints)


Options = TypeVar("Options", bound=BaseModel)


class Settings(BaseModel):
    """Every option of the app. ``range`` in a field's ``json_schema_extra`` says in words what is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    model: _Text = _option(None, "a registry name or a path", "weights to serve")
    model_dir: _Path = _option(
        None, "a folder", "folder of downloaded and fine-tuned weights; the app's model/ by default"
    )
    rollback: _Text = _option(
        None, "a published version, or base", "version to go back to when the server starts"
    )
    image_size: _Side = _option(
        None,
        f"a multiple of {IMAGE_SIZE_STEP} from {IMAGE_SIZE_RANGE[0]} to {IMAGE_SIZE_RANGE[1]}",
        "side of the network's input in pixels; by default what suits the weights and the device",
    )
    precision: Annotated[Precision, BeforeValidator(_lower)] = _option(
        "auto", "one of " + ", ".join(get_args(Precision)), "number format of the network"
    )
    runtime: Annotated[RuntimeName, BeforeValidator(_lower)] = _option(
        "auto",
        "one of " + ", ".join(get_args(RuntimeName)),
        "what computes the network; auto: OpenVINO on a CPU where it is installed, else torch; "
        "compile: torch.compile, on a GPU with CUDA graphs",
    )
    device: Annotated[str, BeforeValidator(_lower)] = _option(
        "auto", "auto, cpu, cuda or cuda:N", "device of the network", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )
    labels: Annotated[_Names, AfterValidator(_label_names)] = _option(
        (),
        f"names separated by commas, of at most {MAX_NAME} characters, not beginning with {RESULT_PREFIX}, "
        f"none of {', '.join(sorted(PROMPT_KEYS))}",
        "labels that viewers offer",
    )
    embedding_cache_mb: _Count = _option(1024, "0 or more", "memory for image embeddings in MiB, 0 for none")
    embedding_disk_gb: Annotated[float, Field(ge=0)] = _option(
        0.0, "0 or more", "disk for the embeddings that POST /batch/infer/embed prepares, in GB, 0 for none"
    )
    prefetch: _Count = _option(
        8,
        "0 or more",
        "slices around a click that are encoded in the background, 0 for none",
    )
    image_cache_mb: _Count = _option(2048, "0 or more", "memory for opened images in MiB, 0 for none")
    max_voxels: _Positive = _option(512 * 512 * 1024, "1 or more", "largest image that is opened, in voxels")
    largest_component: bool = _option(False, "true or false", "keep an object's largest component only")
    fill_holes: bool = _option(False, "true or false", "fill the holes of an object")
    threads: _Count = _option(0, "0 or more", "CPU threads of the network, 0 for torch's own choice")
    zoom: Annotated[Zoom, BeforeValidator(_lower)] = _option(
        "all",
        "one of " + ", ".join(get_args(Zoom)),
        "prompts whose small object is looked at again in a window around it",
    )
    local_corrections: bool = _option(True, "true or false", "change a mask only where a click corrects it")
    memory: Annotated[MemoryPolicy, BeforeValidator(_lower)] = _option(
        "fifo", "one of " + ", ".join(get_args(MemoryPolicy)), "memories that a propagation attends to"
    )
    fuse_axes: bool = _option(
        False,
        "true or false",
        "follow objects along all three axes of volumes with nearly cubic voxels; takes three times as long",
    )
    propagate_limit: _Count = _option(
        0, "0 or more", "slices that a propagation goes to either side, 0 for no limit"
    )

    slide_mpp: Annotated[float | None, Field(gt=0), BeforeValidator(_none_if_empty)] = _option(
        None, "above 0", "micrometres per pixel of slides and pictures that do not say it"
    )
    slide_channels: _Names = _option(
        (), "names or numbers separated by commas", "channels of fluorescence slides that are shown"
    )

    strategy: Annotated[StrategyName, BeforeValidator(_lower)] = _option(
        "random",
        "one of " + ", ".join(STRATEGIES),
        "strategy that clients get for random, the name that OHIF always sends",
    )
    lease_minutes: _Count = _option(30, "0 or more", "minutes for which an image is kept for one annotator")
    auto_train: _Count = _option(
        0, "0 or more", "new labels after which a training starts by itself, 0 for never"
    )

    keep_versions: _Count = _option(
        10, "0 or more", "fine-tuned versions, and steps back, whose weights are kept; 0 for all"
    )

    ohif_companion: bool = _option(True, "true or false", "add the annotation toolbar to OHIF's page")
    allowed_origins: Annotated[tuple[_Origin, ...], BeforeValidator(_names)] = _option(
        (),
        "origins such as https://viewer.example.org, separated by commas",
        "web pages of other origins that may use the server",
    )
    allowed_hosts: _Names = _option(
        (),
        "host names separated by commas",
        "names of the server besides IP addresses, localhost and the machine's own name",
    )
    api_keys: _Path = _option(
        None, "a file made by make api-key", "keys that clients must send; access control is off without it"
    )
    auth_public_key: _Path = _option(
        None,
        "a PEM file",
        "the identity provider's public key; by default the keys that it publishes are fetched",
    )
    max_upload_mb: _Positive = _option(4096, "1 or more", "largest request body in MiB")
    heavy_queue: _Count = _option(
        16, "0 or more", "volume and slide requests that may wait before the server answers 503"
    )

    @classmethod
    def from_conf(cls, conf: Mapping[str, str]) -> Settings:
        """Reads the options of ``--conf``.

        Unknown options (MONAI Label has some of its own) are ignored with a warning in the log.

        Args:
            conf: Option names and their text, as MONAI Label passes them to the app.

        Raises:
            SettingsError: Options with values that are not allowed, with the value and the range of each.
        """
        known = {name: str(value).strip() for name, value in conf.items() if name in cls.model_fields}
        for name in conf:
            if name not in known:
                _warn_unknown(name, tuple(cls.model_fields))
        try:
            return cls.model_validate(known)
        except ValidationError as error:
            names = dict.fromkeys(str(item["loc"][0]) for item in error.errors())
            raise SettingsError("\n".join(cls._refusal(name, conf[name]) for name in names)) from error

    @classmethod
    def _refusal(cls, name: str, value: Any) -> str:
        field = cls.model_fields[name]
        extra: Any = field.json_schema_extra
        return f"--conf {name} {value!r}: must be {extra['range']} ({field.description})"


def _warn_unknown(name: str, known: tuple[str, ...]) -> None:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    logger.warning("Unknown option --conf %s is ignored%s", name, hint)


def read_task_options(kind: type[Options], values: Mapping[str, Any], error: type[Exception]) -> Options:
    """Options of a task from a request.

    Args:
        kind: Option model.
        values: Values by name; of a list the first entry is used, as viewers show it, and None is left out.
        error: Raised if options are unknown or out of range; its message names all of them.
    """
    chosen = {
        name: value[0] if isinstance(value, list) and value else value
        for name, value in values.items()
        if value is not None
    }
    try:
        return kind.model_validate(chosen)
    except ValidationError as refusal:
        raise error("; ".join(_complaint(kind, item) for item in refusal.errors())) from None


def _complaint(kind: type[BaseModel], item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"Unknown option {name!r} (available: {', '.join(kind.model_fields)})"
    return f"{name} is {item['input']!r}: {item['msg']}"
