"""Simulated interaction with the sample study: clicks, a box and a propagation per structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import Click
from benchmarks.client import VIEWER_OPTIONS, Viewer
from benchmarks.trials import click_params, click_series, volume_of
from demo.targets import Target
from lib.metrics.segmentation import dice

CLICKS = 3

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Answered:
    """One answer of the server.

    Attributes:
        mask: Mask ``(I, J, K)``; a picture has one slice.
        dice: Dice on the middle slice or, after a propagation, on the whole volume.
        seconds: Time from sending the request to the last byte of the answer.
        params: JSON beside the mask.
    """

    mask: Mask
    dice: float
    seconds: float
    params: Mapping[str, Any]


@dataclass
class Session:
    """All requests about one target, in order.

    Attributes:
        target: Structure.
        clicks: All clicks; answer ``n`` of ``clicked`` belongs to the first ``n + 1``.
        clicked: Answers to the clicks.
        boxed: Answer to the box.
        propagated: Answer to the box for the whole volume; None for a picture.
    """

    target: Target
    clicks: list[Click] = field(default_factory=list)
    clicked: list[Answered] = field(default_factory=list)
    boxed: Answered | None = None
    propagated: Answered | None = None


def work_through(viewer: Viewer, target: Target) -> Session:
    """Segments one target by clicks, by a box and, in a volume, by propagating the box."""
    session = Session(target)
    _click(viewer, session)
    session.boxed = _ask(viewer, "biosam2_box", target, _box_params(target))
    if target.case.is_volume:
        box = {"boxes": [[*target.box, target.middle]]}
        session.propagated = _ask(viewer, "biosam2_propagate", target, box, whole=True)
    return session


def _click(viewer: Viewer, session: Session) -> None:
    """Clicks into the middle of the structure, then into the largest mistake, if there is one."""
    target = session.target

    def segment(clicks: Sequence[Click]) -> Mask:
        params = click_params(clicks, target.middle if target.case.is_volume else None)
        session.clicked.append(_ask(viewer, "biosam2_point", target, params))
        return session.clicked[-1].mask[:, :, target.middle].T

    series = click_series(target.truth[:, :, target.middle].T, segment, count=CLICKS)
    session.clicks = series[-1][0]


def _box_params(target: Target) -> dict[str, Any]:
    """The box as CVAT sends it for a picture, and as 3D Slicer does for a volume: pairs for each axis."""
    x0, y0, x1, y1 = target.box
    if not target.case.is_volume:
        return {"roi": [x0, y0, x1, y1]}
    return {"roi": [x0, x1, y0, y1, target.middle, target.middle]}


def _ask(
    viewer: Viewer, task: str, target: Target, params: Mapping[str, Any], whole: bool = False
) -> Answered:
    options = VIEWER_OPTIONS if target.case.is_volume else {}
    answer = viewer.infer(task, target.case.name, {**params, **options})
    mask = volume_of(answer)
    where = slice(None) if whole else target.middle
    return Answered(mask, dice(mask[..., where], target.truth[..., where]), answer.seconds, answer.params)
