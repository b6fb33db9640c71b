"""Simulated interaction: one box, up to five corrective clicks and one propagation per object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import Click, filled_box, grabcut, random_walk
from benchmarks.client import VIEWER_OPTIONS, Answer, Viewer
from benchmarks.targets import Mask, Target
from lib.metrics.segmentation import dice
from lib.prompts.simulation import correction_click
from lib.transforms.windowing import IntensityWindow

CLICK_COUNTS = (1, 3, 5)
OURS, GRABCUT, FILLED = "ours", "GrabCut", "the filled box"
WALKER, WALKER_OWN = "random walker", "random walker, own clicks"
# Loss of Dice above which a corrective click is harmful.
HARM = 0.02

Series = Sequence[tuple[Sequence[Click], Mask]]


@dataclass
class Trial:
    """All measurements on one object.

    Attributes:
        target: Object.
        dice: Dice by prompt ("box", "1 click", "3 clicks", "5 clicks", "propagation") and method.
        levels: uint8 (H, W, 3), the slice with the server's window.
        boxed: Masks (H, W) for the box by method.
        corrections: Corrective clicks.
        harmful: Corrective clicks that lowered Dice by more than ``HARM``.
        clicks: Clicks in all requests.
        disobeyed: Clicks in all requests whose pixel has the other label in the answer.
    """

    target: Target
    dice: dict[str, dict[str, float]] = field(default_factory=dict)
    levels: NDArray[np.uint8] | None = None
    boxed: dict[str, Mask] = field(default_factory=dict)
    corrections: int = 0
    harmful: int = 0
    clicks: int = 0
    disobeyed: int = 0

    def add(self, prompt: str, method: str, value: float) -> None:
        """Stores one coefficient."""
        self.dice.setdefault(prompt, {})[method] = value


def run_trial(
    viewer: Viewer, target: Target, image: NDArray, *, baselines: bool = True, reach: int | None = None
) -> Trial:
    """Runs all prompts on one object, with the server and the classical methods.

    Args:
        viewer: Client of the server with the image.
        target: Object.
        image: Image of the server, (I, J, K) or (I, J, K, 3).
        baselines: Whether to run the classical methods.
        reach: Most slices to either side in a propagation; None for all.
    """
    trial = Trial(target)
    requests = _Requests(viewer, target)
    answer = requests.box(target.box(), target.index)
    trial.levels = levels_of(image, target.index, answer.params["window"])
    trial.boxed[OURS] = requests.slice_of(answer)
    if baselines:
        trial.boxed[GRABCUT] = grabcut(trial.levels, target.box())
        trial.add("box", FILLED, dice(filled_box(target.truth.shape, target.box()), target.truth))
    for method, mask in trial.boxed.items():
        trial.add("box", method, dice(mask, target.truth))
    series = click_series(target.truth, requests.clicks)
    _add_clicks(trial, OURS, series)
    _count_corrections(trial, series)
    if baselines:
        _add_walker(trial, trial.levels, series)
    if target.item.is_volume:
        trial.add("propagation", OURS, _propagation(requests, reach))
    return trial


def _add_clicks(trial: Trial, method: str, series: Series) -> None:
    for prompt, (_, mask) in _at_counts(series).items():
        trial.add(prompt, method, dice(mask, trial.target.truth))


def _add_walker(trial: Trial, levels: NDArray[np.uint8], series: Series) -> None:
    """Random walker with the clicks of a series, and with clicks that correct its own masks."""
    walks: dict[tuple[Click, ...], Mask] = {}

    def walk(clicks: Sequence[Click]) -> Mask:
        # It takes seconds: once per set of clicks.
        if tuple(clicks) not in walks:
            walks[tuple(clicks)] = random_walk(levels, clicks)
        return walks[tuple(clicks)]

    for prompt, (clicks, _) in _at_counts(series).items():
        trial.add(prompt, WALKER, dice(walk(clicks), trial.target.truth))
    _add_clicks(trial, WALKER_OWN, click_series(trial.target.truth, walk))


def _at_counts(series: Series) -> dict[str, tuple[Sequence[Click], Mask]]:
    """Clicks and mask by number of clicks; a shorter series ends without a mistake left."""
    return {
        "1 click" if count == 1 else f"{count} clicks": series[min(count, len(series)) - 1]
        for count in CLICK_COUNTS
    }


def _count_corrections(trial: Trial, series: Series) -> None:
    values = np.array([dice(mask, trial.target.truth) for _, mask in series])
    trial.corrections, trial.harmful = len(values) - 1, int((np.diff(values) < -HARM).sum())
    for clicks, mask in series:
        trial.clicks += len(clicks)
        trial.disobeyed += sum(bool(mask[click.y, click.x]) != click.positive for click in clicks)


def click_series(
    truth: Mask, segment: Callable[[Sequence[Click]], Mask], *, count: int = max(CLICK_COUNTS), seed: int = 0
) -> list[tuple[list[Click], Mask]]:
    """Clicks into the middle of the object, then repeatedly into the middle of the largest mistake.

    Args:
        truth: Mask (H, W), not empty.
        segment: Method: all clicks so far to a mask (H, W).
        count: Most clicks.
        seed: Seed of the choice among equally central pixels.

    Returns:
        All clicks so far and the mask, after each click; fewer than ``count`` if no mistake is left.
    """
    rng = np.random.default_rng(seed)
    mask: Mask = np.zeros_like(truth)
    clicks: list[Click] = []
    series: list[tuple[list[Click], Mask]] = []
    while len(series) < count and (correction := correction_click(truth, mask, rng)) is not None:
        clicks.append(Click(*correction))
        mask = segment(clicks)
        series.append((list(clicks), mask))
    return series


def click_params(clicks: Sequence[Click], index: int | None) -> dict[str, list[list[int]]]:
    """Request parameters of clicks on a slice; ``index`` is None for a picture."""
    third = [] if index is None else [index]
    return {
        name: [[click.x, click.y, *third] for click in clicks if click.positive == positive]
        for name, positive in (("foreground", True), ("background", False))
    }


def volume_of(answer: Answer) -> Mask:
    """Mask of an answer, (I, J, K)."""
    mask = answer.mask()
    return mask if mask.ndim == 3 else mask[:, :, None]


def levels_of(image: NDArray, index: int, window: Sequence[float]) -> NDArray[np.uint8]:
    """The slice (H, W, 3) with the server's window."""
    frame = np.swapaxes(image[:, :, index], 0, 1)
    levels = IntensityWindow(float(window[0]), float(window[1]), "answer").apply(frame)
    return levels if levels.ndim == 3 else np.repeat(levels[:, :, None], 3, axis=2)


def _propagation(requests: _Requests, reach: int | None) -> float:
    target = requests.target
    options: dict[str, Any] = {}
    if reach is not None:
        count = target.voxels.shape[2]
        options["slice_range"] = [max(0, target.middle - reach), min(count, target.middle + reach + 1)]
    answer = requests.box(target.box(target.middle), target.middle, task="biosam2_propagate", **options)
    return dice(volume_of(answer), target.voxels)


@dataclass(frozen=True)
class _Requests:
    """Requests about one object."""

    viewer: Viewer
    target: Target

    def box(
        self, box: tuple[int, int, int, int], index: int, task: str = "biosam2_box", **options: Any
    ) -> Answer:
        return self._infer(task, {"boxes": [[*box, index]], **options})

    def clicks(self, clicks: Sequence[Click]) -> Mask:
        """The mask (H, W) for clicks on the object's slice."""
        index = self.target.index if self.target.item.is_volume else None
        return self.slice_of(self._infer("biosam2_point", click_params(clicks, index)))

    def slice_of(self, answer: Answer) -> Mask:
        return volume_of(answer)[:, :, self.target.index].T

    def _infer(self, task: str, params: Mapping[str, Any]) -> Answer:
        options = VIEWER_OPTIONS if self.target.item.is_volume else {}
        return self.viewer.infer(task, self.target.item.id, {**options, **params})
