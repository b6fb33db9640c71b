"""The app's options (``--conf name value``): name, type, default, range, in one place."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from lib.errors import SettingsError

logger = logging.getLogger(__name__)

# SAM 2's encoder halves the image five times, so a side must be a multiple of 2**5.
IMAGE_SIZE_STEP = 32
IMAGE_SIZE_RANGE = (64, 2048)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")
STRATEGIES = ("random", "first", "last", "diversity", "uncertainty", "hybrid")
_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def _model(text: str) -> str | None:
    return text or None


def _model_dir(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _image_size(text: str) -> int | None:
    if not text:
        return None
    size = int(text)
    low, high = IMAGE_SIZE_RANGE
    if size % IMAGE_SIZE_STEP or not low <= size <= high:
        raise ValueError
    return size


def _precision(text: str) -> str:
    if text.lower() not in _PRECISIONS:
        raise ValueError
    return text.lower()


def _device(text: str) -> str:
    if not _DEVICE.fullmatch(text.lower()):
        raise ValueError
    return text.lower()


def _strategy(text: str) -> str:
    if text.lower() not in STRATEGIES:
        raise ValueError
    return text.lower()


def _labels(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _flag(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError
    return text.lower() in _TRUE


def _option(parse: Callable[[str], Any], allowed: str, description: str) -> dict[str, Any]:
    return {"parse": parse, "range": allowed, "description": description}


@dataclass(frozen=True)
class Settings:
    """Every option of the app. Each field's metadata has ``description`` and ``range`` (in words)."""

    model: str | None = field(
        default=None, metadata=_option(_model, "a registry name or a path", "the weights to serve")
    )
    model_dir: Path | None = field(
        default=None,
        metadata=_option(
            _model_dir, "a folder", "where downloaded and fine-tuned weights lie; the app's model/ by default"
        ),
    )
    rollback: str | None = field(
        default=None,
        metadata=_option(
            _model, "a published version, or base", "the version to go back to when the server starts"
        ),
    )
    image_size: int | None = field(
        default=None,
        metadata=_option(
            _image_size,
            f"a multiple of {IMAGE_SIZE_STEP} from {IMAGE_SIZE_RANGE[0]} to {IMAGE_SIZE_RANGE[1]}",
            "side of the network's input in pixels; by default what suits the weights and the device",
        ),
    )
    precision: Precision = field(
        default="auto",
        metadata=_option(_precision, "one of " + ", ".join(_PRECISIONS), "number format of the network"),
    )
    device: str = field(
        default="auto", metadata=_option(_device, "auto, cpu, cuda or cuda:N", "where the network runs")
    )
    labels: tuple[str, ...] = field(
        default=(), metadata=_option(_labels, "names with commas between", "labels that viewers offer")
    )
    embedding_cache_mb: int = field(
        default=1024, metadata=_option(_count, "0 or more", "memory for image embeddings in MiB, 0 for none")
    )
    image_cache_mb: int = field(
        default=2048, metadata=_option(_count, "0 or more", "memory for opened images in MiB, 0 for none")
    )
    max_voxels: int = field(
        default=512 * 512 * 1024,
        metadata=_option(_positive, "1 or more", "largest image that is opened, in voxels"),
    )
    largest_component: bool = field(
        default=False, metadata=_option(_flag, "true or false", "keep an object's largest component only")
    )
    fill_holes: bool = field(
        default=False, metadata=_option(_flag, "true or false", "fill the holes of an object")
    )
    threads: int = field(
        default=0,
        metadata=_option(_count, "0 or more", "CPU threads of the network, 0 for torch's own choice"),
    )
    propagate_limit: int = field(
        default=0,
        metadata=_option(
            _count, "0 or more", "slices that a propagation goes to either side, 0 for no limit"
        ),
    )

    strategy: str = field(
        default="random",
        metadata=_option(
            _strategy,
            "one of " + ", ".join(STRATEGIES),
            "how the next sample is chosen where a client says random",
        ),
    )
    lease_minutes: int = field(
        default=30,
        metadata=_option(_count, "0 or more", "minutes for which an image is kept for who was given it"),
    )
    auto_train: int = field(
        default=0,
        metadata=_option(
            _count, "0 or more", "new labels after which a training starts by itself, 0 for never"
        ),
    )

    @classmethod
    def from_conf(cls, conf: Mapping[str, str]) -> Settings:
        """Reads the options of ``--conf``.

        Options of other names (MONAI Label has some of its own) are left alone, with a warning in the log.

        Args:
            conf: option name to text, as MONAI Label hands it to the app.

        Raises:
            SettingsError: naming every option whose value is not allowed, the value, and what is.
        """
        known = {option.name: option for option in fields(cls)}
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for name, raw in conf.items():
            if name not in known:
                _warn_unknown(name, tuple(known))
                continue
            metadata = known[name].metadata
            try:
                values[name] = metadata["parse"](str(raw).strip())
            except ValueError:
                wrong.append(
                    f"--conf {name} {raw!r}: must be {metadata['range']} ({metadata['description']})"
                )
        if wrong:
            raise SettingsError("\n".join(wrong))
        return cls(**values)


def _warn_unknown(name: str, known: tuple[str, ...]) -> None:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    logger.warning("--conf %s is no option of this app and is ignored%s", name, hint)
