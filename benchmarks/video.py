"""Objects followed through clips: J&F by number of interacted frames and memory policy, frames per second.

    python -m benchmarks.video [--model NAME] [--policies fifo pruned confidence] [--rounds N]

Clips of known truth are drawn: two alike cells cross, one passes behind a bar, the picture is cut to another
scene and back, one hardly moves. The echo of the data pack (BIOSAM2_DATA) has a truth on one frame, which
rough hands drew: its time counts, its accuracy is a column of its own. Prompts are boxes on 1, 2, 4 or 8
frames that are evenly spaced among those with the object, as in BioSAM-2's Table 4. J is the Jaccard index,
F the boundary measure of DAVIS, each the mean over the frames without a prompt.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.checkpoint import write_random_checkpoint
from benchmarks.items import ROOT, find_data, read_items
from benchmarks.machine import machine
from benchmarks.publish import write_report
from benchmarks.tables import number
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.engine.propagation import propagate
from lib.evaluation.results import markdown_table
from lib.images.reading import read_image
from lib.metrics.segmentation import dice, region_and_boundary
from lib.prompts.simulation import tight_box
from lib.prompts.types import FramePrompts
from lib.settings import MemoryPolicy, Settings
from lib.transforms.frames import FrameStack
from lib.transforms.windowing import IntensityWindow

MODELS = ROOT / "apps" / "biosam2" / "model"
INTERACTED = (1, 2, 4, 8)
HEIGHT, WIDTH, FRAMES = 160, 208, 40
AXES = (22.0, 15.0)  # of the drawn cells, in pixels
LARGER_FRAMES = 16
HIDDEN = range(16, 22)  # frames on which the cut clip shows another scene

Place = Callable[[int], tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip and where its object is.

    Attributes:
        name: Name in the table.
        frames: uint8 (T, H, W, 3).
        truth: bool (T, H, W); of the frames in ``known`` alone.
        known: Frames with a truth.
    """

    name: str
    frames: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    known: Sequence[int]

    def prompts(self, count: int) -> dict[int, FramePrompts]:
        """Boxes on ``count`` frames with the object, evenly spaced, the first one among them."""
        seen = [index for index in self.known if self.truth[index].any()]
        chosen = {seen[place * len(seen) // count] for place in range(min(count, len(seen)))}
        return {index: FramePrompts.of_box(tight_box(self.truth[index])) for index in sorted(chosen)}


def drawn_clips() -> Iterator[Clip]:
    """The clips whose truth is known on every frame."""
    rng = np.random.default_rng(5)
    ground, other = (_texture(rng, 6.0) for _ in range(2))

    def onward(t: int) -> tuple[float, float]:
        return 40 + 3.1 * t, 80 + 8 * np.sin(t / 6)

    def downward(t: int) -> tuple[float, float]:
        return 110 + 2 * np.cos(t / 5), 15 + 3.4 * t

    frames, truth = _scene(ground, [onward, downward])
    yield Clip("crossing", frames, truth, range(FRAMES))
    frames, truth = _scene(ground, [onward])
    bar = slice(88, 120)
    frames[:, :, bar], truth[:, :, bar] = 70, False
    yield Clip("occlusion", frames, truth, range(FRAMES))
    frames, truth = _scene(ground, [onward])
    frames[HIDDEN], _ = (part[HIDDEN] for part in _scene(other, [downward]))
    truth[HIDDEN] = False
    yield Clip("cut", frames, truth, range(FRAMES))
    frames, truth = _scene(ground, [lambda t: (100 + 4 * np.sin(t / 4), 80 + 3 * np.cos(t / 7))])
    yield Clip("slow", frames, truth, range(FRAMES))


def echo() -> Clip | None:
    """The echo of the data pack; None without one."""
    data = find_data()
    items = [item for item in read_items(data) if "frames" in item.image.parts] if data else []
    if not items:
        return None
    item = items[0]
    files = sorted(item.image.parent.glob(f"*{item.image.suffix}"))
    frames = np.stack([read_image(file, 1 << 30).array[:, :, 0].swapaxes(0, 1) for file in files])
    truth = np.zeros(frames.shape[:3], bool)
    first = files.index(item.image)
    truth[first] = item.read_label()[:, :, 0].T > 0
    return Clip("echo", frames, truth, [first])


def _texture(rng: np.random.Generator, scale: float) -> NDArray[np.float64]:
    noise = ndimage.gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), scale)
    return np.asarray(110 + 14 * noise / noise.std())


def _scene(ground: NDArray[np.float64], places: Sequence[Place]) -> tuple[NDArray, NDArray[np.bool_]]:
    """A clip with bright cells on a ground, the first one, whose truth is returned, before the others."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    truth = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    for t in range(FRAMES):
        picture = ground.copy()
        for place in reversed(places):
            u, v = place(t)
            truth[t] = ((x - u) / AXES[0]) ** 2 + ((y - v) / AXES[1]) ** 2 < 1
            picture[truth[t]] = 0.4 * picture[truth[t]] + 125
        noisy = ndimage.gaussian_filter(picture, 0.8) + rng.normal(0, 5, picture.shape)
        frames[t] = np.clip(noisy, 0, 255).astype(np.uint8)[..., None]
    return frames, truth


@dataclass(frozen=True, eq=False)
class Followed:
    """A clip's object as one policy followed it.

    Attributes:
        masks: bool (T, H, W).
        seconds: Time of each frame, in the order in which they were visited.
    """

    masks: NDArray[np.bool_]
    seconds: list[float]


def follow(
    predictor: Predictor, clip: Clip, count: int, policies: Sequence[MemoryPolicy]
) -> dict[MemoryPolicy, Followed]:
    """Follows a clip's object with several policies, which take turns frame by frame.

    Whatever else the machine does then slows all of them alike. Nothing is encoded beforehand or twice.
    """
    frames = FrameStack(clip.frames.transpose(2, 1, 0, 3), 2, IntensityWindow(0, 255, "request"), digest="")
    prompts = clip.prompts(count)
    ways = {policy: propagate(predictor, frames, [prompts], ends=False, memory=policy) for policy in policies}
    found = {policy: Followed(np.zeros(clip.frames.shape[:3], bool), []) for policy in policies}
    for step in range(len(frames)):
        for policy in policies if step % 2 else policies[::-1]:
            started = time.perf_counter()
            _, index, result = next(ways[policy])
            found[policy].seconds.append(time.perf_counter() - started)
            found[policy].masks[index] = result.mask
    return found


def scores(clip: Clip, found: NDArray[np.bool_], prompted: Sequence[int]) -> tuple[float, float, float]:
    """J, F and their mean over the frames with a truth and without a prompt."""
    rest = [index for index in clip.known if index not in prompted]
    values = [region_and_boundary(found[index], clip.truth[index]) for index in rest]
    j, f, both = np.mean(values, axis=0).tolist()
    return j, f, both


# Seconds of each frame by policy, in one order for all, by clip.
Times = dict[str, dict[MemoryPolicy, list[float]]]


def measure(
    predictor: Predictor, policies: Sequence[MemoryPolicy], rounds: int, clips: Sequence[Clip]
) -> tuple[list[list[str]], Times]:
    """Rows of the table, and times."""
    rows, times = [], Times()
    for clip in clips:
        seconds = times.setdefault(clip.name, {policy: [] for policy in policies})
        for count in INTERACTED if len(clip.known) > 1 else (1,):
            for _ in range(rounds):
                found = follow(predictor, clip, count, policies)
                for policy in policies:
                    seconds[policy] += found[policy].seconds
            prompted = list(clip.prompts(count))
            rows.append(
                [clip.name, str(count), *(_cell(clip, found[policy].masks, prompted) for policy in policies)]
            )
    return rows, times


def _cell(clip: Clip, found: NDArray[np.bool_], prompted: list[int]) -> str:
    if len(clip.known) == 1:
        return f"Dice {number(dice(found[clip.known[0]], clip.truth[clip.known[0]]))}, prompted frame"
    return ", ".join(number(value) for value in scores(clip, found, prompted))


def measure_larger(size: int, policies: Sequence[MemoryPolicy], threads: int) -> str:
    """Times with SAM 2.1 tiny, which reads seven memories; its weights are random, so no mask counts."""
    with tempfile.TemporaryDirectory() as folder:
        weights = write_random_checkpoint(Path(folder))
        settings = Settings(threads=threads, model=str(weights), image_size=size)
        predictor = PredictorPool(settings, MODELS).get()
        whole = next(drawn_clips())
        clip = replace(whole, frames=whole.frames[:LARGER_FRAMES], known=[0])
        found = follow(predictor, clip, 1, policies)
    full = {policy: found[policy].seconds[predictor.new_bank().spatial :] for policy in policies}
    ratios = (f"{policy} {_ratio(full[policy], full[policies[0]])}" for policy in policies)
    return f"SAM 2.1 tiny at {size} px, once all seven memories are there: {', '.join(ratios)}."


def report(rows: list[list[str]], times: Times, name: str, larger: str = "") -> str:
    """The tables as Markdown."""
    policies = list(next(iter(times.values())))
    together = {policy: [value for each in times.values() for value in each[policy]] for policy in policies}
    speed = [
        [
            policy,
            number(1 / statistics.median(together[policy]), 1),
            *(_ratio(each[policy], each[policies[0]]) for each in (*times.values(), together)),
        ]
        for policy in policies
    ]
    facts = ", ".join(f"{fact} {value}" for fact, value in machine().items())
    header = ["clip", "interacted frames", *(f"{policy}: J, F, J&F" for policy in policies)]
    return "\n\n".join(
        [
            markdown_table(header, rows),
            markdown_table(["memory", "frames per second", *times, "all"], speed),
            f"Weights: {name}. The policies take turns frame by frame. Frames per second of the median "
            f"frame; by clip, the median of the ratios of a frame's time to that with {policies[0]}, in "
            f"brackets its 95% interval. {larger} {facts}.\n",
        ]
    )


def _ratio(ours: Sequence[float], others: Sequence[float]) -> str:
    """Median of the ratios of two policies' times of the same frame, and its 95% interval (bootstrap)."""
    ratios = np.divide(ours, others)
    if (ratios == 1).all():
        return number(1, 3)
    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(ratios, len(ratios))) for _ in range(1000)]
    low, high = np.quantile(medians, (0.025, 0.975))
    return f"{number(float(np.median(ratios)), 3)} ({number(float(low), 3)} to {number(float(high), 3)})"


def main(argv: list[str] | None = None) -> None:
    """Measures, prints the report and writes it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.video", description=__doc__)
    parser.add_argument("--model", help="registry name or path of the weights")
    parser.add_argument("--policies", nargs="+", default=["fifo", "pruned"], choices=get_args(MemoryPolicy))
    parser.add_argument("--rounds", type=int, default=3, help="runs of each clip, for the time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--larger", type=int, default=1024, help="pixels for SAM 2.1 tiny; 0 for none")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(argv)
    predictor = PredictorPool(Settings(threads=options.threads, model=options.model), MODELS).get()
    clips = [*drawn_clips(), *([found] if (found := echo()) else [])]
    measured = measure(predictor, options.policies, options.rounds, clips)
    larger = measure_larger(options.larger, options.policies, options.threads) if options.larger else ""
    text = report(*measured, predictor.name, larger)
    write_report(text, options.output, "video")
    print(text)


if __name__ == "__main__":
    main()
