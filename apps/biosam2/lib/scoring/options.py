"""What a client may choose for a scoring: name, default, range; one error that names a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lib.engine.runtime import resolve_device
from lib.errors import EvaluationError
from lib.scoring.signals.scorer import ScorePlan

T = TypeVar("T", bound="ScoringOptions")

# Keys that MONAI Label and its clients put beside the options.
_NOT_OPTIONS = frozenset({"method", "client_id", "gpus", "multi_gpu", "model"})


class ScoringOptions(BaseModel):
    """What every scoring method takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = Field("", description="cpu, cuda or cuda:N; empty for the app's own")
    max_minutes: float = Field(0.0, ge=0, description="after which no further image is begun, 0 for no limit")
    again: bool = Field(False, description="whether to score anew what has not changed")

    @property
    def limit_s(self) -> float:
        """Seconds that the scoring may take."""
        return self.max_minutes * 60 if self.max_minutes else float("inf")


class UncertaintyOptions(ScoringOptions):
    """What ``biosam2_uncertainty`` takes."""

    images: Literal["all", "unlabelled"] = Field(
        "all", description="labelled images are scored last; their embeddings tell what is not covered yet"
    )
    max_images: int = Field(0, ge=0, description="that are scored in one call, 0 for no limit")
    downloads: int = Field(8, ge=0, description="images of a DICOM store that are fetched for it, at most")
    slices: int = Field(6, ge=1, le=64, description="of each image that are looked at, at most")
    jitters: int = Field(4, ge=0, le=16, description="boxes drawn around each object, below 2 for none")
    seconds_per_image: float = Field(60.0, gt=0, le=3600)

    @property
    def plan(self) -> ScorePlan:
        """How closely an image is looked at."""
        return ScorePlan(self.slices, self.jitters, self.seconds_per_image)


class SurfaceOptions(ScoringOptions):
    """What ``nsd`` takes."""

    tolerance_mm: float = Field(
        2.0, ge=0, le=1000, description="that a surface may be off; pixels in pictures"
    )


def read_options(kind: type[T], request: Mapping[str, Any]) -> T:
    """The options of a request.

    Args:
        kind: of options.
        request: as MONAI Label hands it over; lists stand for their first entry, as viewers show them.

    Raises:
        EvaluationError: naming every option that is unknown or out of range, and what is allowed.
        DeviceError: for a device that does not exist here.
    """
    chosen = {
        name: value[0] if isinstance(value, list) and value else value
        for name, value in request.items()
        if value is not None and name not in _NOT_OPTIONS and not isinstance(value, dict)
    }
    try:
        options = kind.model_validate(chosen)
    except ValidationError as error:
        raise EvaluationError("; ".join(_complaint(item, kind) for item in error.errors())) from None
    resolve_device(options.device)
    return options


def _complaint(item: Any, kind: type[ScoringOptions]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{name} is no option of this scoring; there are {', '.join(kind.model_fields)}"
    return f"{name} is {item['input']!r}: {item['msg']}"
