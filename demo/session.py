"""A person at a viewer, played by the truth: clicks, boxes and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.client import VIEWER_OPTIONS, Viewer
from demo.targets import Target
from lib.metrics.overlap import dice
from lib.prompts.simulation import correction_click

CLICKS = 3
SEED = 0  # of the choice between error regions of the same depth

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Click:
    """A click on pixel ``(x, y)`` of the target's middle slice."""

    x: int
    y: int
    positive: bool


@dataclass(frozen=True)
class Answered:
    """One answer of the server.

    Attributes:
        mask: ``(I, J, K)``; a picture has one slice.
        dice: against the truth, of the middle slice or, after a propagation, of the whole volume.
        seconds: from sending the request to the last byte of the answer.
        params: the JSON beside the mask.
    """

    mask: Mask
    dice: float
    seconds: float
    params: Mapping[str, Any]


@dataclass
class Session:
    """All that was asked about one target, in order.

    Attributes:
        clicks: every click; answer ``n`` of ``clicked`` was given to the first ``n + 1``.
        boxed: the answer to the box.
        propagated: the answer to the box for the whole volume; None for a picture.
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
    """Clicks into the middle of the structure, then into the largest mistake, while there is one."""
    rng = np.random.default_rng(SEED)
    truth = session.target.truth[:, :, session.target.middle]
    current: Mask = np.zeros_like(truth)
    for _ in range(CLICKS):
        found = correction_click(truth.T, current.T, rng)
        if found is None:
            break
        session.clicks.append(Click(*found))
        answer = _ask(viewer, "biosam2_point", session.target, _click_params(session))
        session.clicked.append(answer)
        current = answer.mask[:, :, session.target.middle]


def _click_params(session: Session) -> dict[str, Any]:
    """All the clicks so far, as 3D Slicer and CVAT send them: a picture's have no third index."""
    target = session.target
    third = [target.middle] if target.case.is_volume else []
    clicks: dict[bool, list[list[int]]] = {True: [], False: []}
    for click in session.clicks:
        clicks[click.positive].append([click.x, click.y, *third])
    return {"foreground": clicks[True], "background": clicks[False]}


def _box_params(target: Target) -> dict[str, Any]:
    """The box as CVAT sends it for a picture, and as 3D Slicer does for a volume: pairs for each axis."""
    x0, y0, x1, y1 = target.box
    if not target.case.is_volume:
        return {"roi": [x0, y0, x1, y1]}
    return {"roi": [x0, x1, y0, y1, target.middle, target.middle]}


def _ask(viewer: Viewer, task: str, target: Target, params: dict[str, Any], whole: bool = False) -> Answered:
    options = VIEWER_OPTIONS if target.case.is_volume else {}
    answer = viewer.infer(task, target.case.name, {**params, **options})
    mask = answer.mask()
    mask = mask if mask.ndim == 3 else mask[:, :, None]
    where = slice(None) if whole else target.middle
    return Answered(mask, dice(mask[..., where], target.truth[..., where]), answer.seconds, answer.params)
