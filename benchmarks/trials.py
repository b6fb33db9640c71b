"""A person at a viewer, played by the truth: one box, up to five clicks, one propagation per object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import Click, filled_box, grabcut, random_walk
from benchmarks.client import VIEWER_OPTIONS, Answer, Viewer
from benchmarks.targets import Mask, Target
from lib.metrics.overlap import dice
from lib.prompts.simulation import correction_click
from lib.transforms.windowing import Window

CLICK_COUNTS = (1, 3, 5)
OURS, GRABCUT, FILLED = "ours", "GrabCut", "the filled box"
WALKER, WALKER_OWN = "random walker", "random walker, own clicks"


@dataclass
class Trial:
    """Everything that was measured on one object.

    Attributes:
        target: the object.
        dice: by prompt ("box", "1 click", "3 clicks", "5 clicks", "propagation") and method.
        levels: (H, W, 3) uint8, the slice as the server windowed it.
        boxed: by method, the masks (H, W) that answered the box.
    """

    target: Target
    dice: dict[str, dict[str, float]] = field(default_factory=dict)
    levels: NDArray[np.uint8] | None = None
    boxed: dict[str, Mask] = field(default_factory=dict)

    def add(self, prompt: str, method: str, value: float) -> None:
        """Note one coefficient."""
        self.dice.setdefault(prompt, {})[method] = value


def run_trial(
    viewer: Viewer, target: Target, image: NDArray, *, baselines: bool = True, reach: int | None = None
) -> Trial:
    """All prompts on one object, by the server and by the classic methods.

    Args:
        viewer: speaks to the server that holds the image.
        target: the object.
        image: (I, J, K) or (I, J, K, 3), what the server has.
        baselines: whether to run the classic methods too.
        reach: most slices to either side of the prompted one that a propagation visits; None for all.
    """
    trial = Trial(target)
    asking = _Asking(viewer, target)
    answer = asking.box(target.box(), target.index)
    levels = levels_of(image, target.index, answer.params["window"])
    trial.levels = levels
    trial.boxed[OURS] = asking.slice_of(answer)
    if baselines:
        trial.boxed[GRABCUT] = grabcut(levels, target.box())
        trial.add("box", FILLED, dice(filled_box(target.truth.shape, target.box()), target.truth))
    for method, mask in trial.boxed.items():
        trial.add("box", method, dice(mask, target.truth))
    _click_trials(trial, asking, levels, baselines)
    if target.item.is_volume:
        trial.add("propagation", OURS, _propagation(asking, reach))
    return trial


def _click_trials(trial: Trial, asking: _Asking, levels: NDArray[np.uint8], baselines: bool) -> None:
    truth = trial.target.truth
    walks: dict[tuple[Click, ...], Mask] = {}

    def walk(clicks: Sequence[Click]) -> Mask:
        """The random walker, once per set of clicks: it takes seconds."""
        if tuple(clicks) not in walks:
            walks[tuple(clicks)] = random_walk(levels, clicks)
        return walks[tuple(clicks)]

    series = click_series(truth, asking.clicks)
    walker = click_series(truth, walk) if baselines else []
    for count in CLICK_COUNTS:
        prompt = f"{count} click" if count == 1 else f"{count} clicks"
        clicks, mask = series[min(count, len(series)) - 1]
        trial.add(prompt, OURS, dice(mask, truth))
        if baselines:
            trial.add(prompt, WALKER, dice(walk(clicks), truth))
            trial.add(prompt, WALKER_OWN, dice(walker[min(count, len(walker)) - 1][1], truth))


def click_series(
    truth: Mask, segment: Callable[[Sequence[Click]], Mask], *, count: int = max(CLICK_COUNTS), seed: int = 0
) -> list[tuple[list[Click], Mask]]:
    """Click into the middle of the object, then again and again into the largest mistake.

    Args:
        truth: (H, W), not empty.
        segment: the method: all clicks so far to a mask (H, W).
        count: most clicks.
        seed: of the choice among equally central pixels.

    Returns:
        After each click, all clicks so far and the mask; fewer than ``count`` when no mistake is left.
    """
    rng = np.random.default_rng(seed)
    mask: Mask = np.zeros_like(truth)
    clicks: list[Click] = []
    series = []
    for _ in range(count):
        correction = correction_click(truth, mask, rng)
        if correction is None:
            break
        clicks.append(Click(*correction))
        mask = segment(clicks)
        series.append((list(clicks), mask))
    return series


def levels_of(image: NDArray, index: int, window: Sequence[float]) -> NDArray[np.uint8]:
    """The slice (H, W, 3) as the server showed it to its network."""
    frame = np.swapaxes(image[:, :, index], 0, 1)
    levels = Window(float(window[0]), float(window[1]), "answer").apply(frame)
    return levels if levels.ndim == 3 else np.repeat(levels[:, :, None], 3, axis=2)


def _propagation(asking: _Asking, reach: int | None) -> float:
    target = asking.target
    options: dict[str, Any] = {}
    if reach is not None:
        count = target.voxels.shape[2]
        options["slice_range"] = [max(0, target.middle - reach), min(count, target.middle + reach + 1)]
    answer = asking.box(target.box(target.middle), target.middle, task="biosam2_propagate", **options)
    return dice(asking.volume_of(answer), target.voxels)


@dataclass(frozen=True)
class _Asking:
    """Requests about one object."""

    viewer: Viewer
    target: Target

    def box(
        self, box: tuple[int, int, int, int], index: int, task: str = "biosam2_box", **options: Any
    ) -> Answer:
        return self._infer(task, {"boxes": [[*box, index]], **options})

    def clicks(self, clicks: Sequence[Click]) -> Mask:
        """The mask (H, W) for clicks on the object's slice."""
        third = [self.target.index] if self.target.item.is_volume else []
        sides = {
            name: [[click.x, click.y, *third] for click in clicks if click.positive == positive]
            for name, positive in (("foreground", True), ("background", False))
        }
        return self.slice_of(self._infer("biosam2_point", sides))

    def slice_of(self, answer: Answer) -> Mask:
        return self.volume_of(answer)[:, :, self.target.index].T

    @staticmethod
    def volume_of(answer: Answer) -> Mask:
        mask = answer.mask()
        return mask if mask.ndim == 3 else mask[:, :, None]

    def _infer(self, task: str, params: dict[str, Any]) -> Answer:
        options = VIEWER_OPTIONS if self.target.item.is_volume else {}
        return self.viewer.infer(task, self.target.item.id, {**options, **params})
