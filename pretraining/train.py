"""Train biosam2_mini. `python -m pretraining.train --help` names the options; README.md the commands."""

from __future__ import annotations

import argparse
import csv
import logging
import math
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base

from pretraining import checkpoint
from pretraining.network import (
    CONFIG,
    Features,
    build,
    encode,
    half_precision,
    plain_attention,
    quick_depthwise,
)
from pretraining.real import RealStack, load_stacks, real_scenes
from pretraining.scenes import Scenes, concatenate
from pretraining.start import fill, parameter_groups
from pretraining.steps import Outcome, clip_step, image_step
from pretraining.synthetic import synthetic_scenes

logger = logging.getLogger("pretraining")

SIZE = 256
EASIEST = 0.3  # level of the first scenes
WARM_RATE = 1e-3
WARM_REUSE = 10  # steps that share one batch of encoded images while the decoder learns alone
RISE = 100  # steps in which the rate rises to its height
KINDS = ("box", "box+", "click", "clicks", "corrected", "fed back", "tracked", "presence", "aligned")
COLUMNS = ("step", "seconds", "images", "level", "rate", "loss", *KINDS)


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for checkpoint.pt and log.csv")
    add("--config", type=Path, default=CONFIG, help="the network's architecture (YAML)")
    add("--real", type=Path, action="append", default=[], help="data folder or packed file; may be repeated")
    add("--real-share", type=float, default=0.7, help="share of real images; the others are synthetic")
    add("--trunk", type=Path, help="MobileSAM's encoder (ONNX), for the trunk to start from")
    add(
        "--start-from", type=Path, help="exported weights to start from; tensors of other shapes are left out"
    )
    add(
        "--align", type=int, default=0, help="first steps, in which the encoder learns the teacher's features"
    )
    add("--teacher", type=Path, help="exported weights whose features --align learns")
    add("--teacher-config", type=Path, default=CONFIG)
    add("--steps", type=int, help="length of the training; without it, it goes on until it is stopped")
    add(
        "--anneal",
        type=int,
        default=0,
        help="last steps: the rate falls to zero; without --steps from now on",
    )
    add("--size", type=int, default=SIZE, help="side of the images in pixels")
    add("--batch", type=int, default=8, help="images a step")
    add("--objects", type=int, default=6, help="prompted objects an image, even")
    add("--rate", type=float, default=3e-4)
    add("--trunk-rate", type=float, default=0.3, help="the trunk's rate as a share of --rate")
    add("--warm-steps", type=int, default=0, help="steps that train the decoder alone")
    add("--ramp", type=int, default=0, help="steps after which scenes are hardest")
    add("--clip-every", type=int, default=3, help="steps from one clip to the next; 0 for none")
    add("--frames", type=int, default=8, help="most frames of a clip")
    add("--seed", type=int, default=7)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--save-every", type=float, default=120, help="seconds between checkpoints")
    add("--export", type=Path, help="also write the averaged weights here, in fp16")
    return parser.parse_args(argv)


class Training:
    """State of a training and what one step does to it."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.workers = dist.get_world_size() if dist.is_initialized() else 1
        self.model = build(args.size, args.config)
        fill(self.model, args.start_from, args.trunk)
        self.model = self.model.to(args.device).train()
        self.model.image_encoder.to(memory_format=torch.channels_last)
        if torch.device(args.device).type == "cpu":
            quick_depthwise(self.model)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, args.trunk_rate), lr=args.rate, betas=(0.9, 0.98), fused=True
        )
        self.average = checkpoint.Average(self.model)
        self.step, self.seconds, self.images = 0, 0.0, 0
        self.end = args.steps if args.steps else args.anneal or math.inf
        self.cached: tuple[Scenes, Features] | None = None
        self.stacks: list[RealStack] = load_stacks(args.real)
        self.teacher = _teacher(args) if args.align else None

    @property
    def level(self) -> float:
        """Difficulty of the scenes now."""
        return min(1.0, EASIEST + (1 - EASIEST) * self.step / self.args.ramp) if self.args.ramp else 1.0

    @property
    def annealing_from(self) -> float:
        """Step from which the rate falls."""
        return self.end - self.args.anneal if self.args.anneal else math.inf

    def rate(self) -> float:
        """Learning rate now: while warming WARM_RATE; then it rises, stays, and falls in the last steps."""
        if self.step < max(self.args.warm_steps, self.args.align):
            return WARM_RATE * min(1.0, (self.step + 1) / 40)
        risen = min(1.0, (self.step - max(self.args.warm_steps, self.args.align) + 1) / RISE)
        left = (self.end - self.step) / self.args.anneal if self.args.anneal else 1.0
        return self.args.rate * risen * min(1.0, left)

    def scenes(self, gen: torch.Generator, images: int, frames: int) -> Scenes:
        """A mixed batch."""
        exact = images * self.args.real_share if self.stacks else 0.0
        chance = float(torch.rand(1, generator=gen, device=gen.device))
        real = min(images, int(exact) + int(chance < exact - int(exact)))
        size, parts = self.model.image_size, []
        if images > real:
            parts.append(synthetic_scenes(gen, images - real, size, self.level, frames=frames))
        if real:
            parts.append(real_scenes(self.stacks, gen, real, size, frames=frames))
        return concatenate(parts)

    def advance(self) -> tuple[Outcome, float]:
        """One optimisation step. Returns what came of it and the learning rate."""
        args = self.args
        if self.step == self.annealing_from:
            # A mean that reaches back a thousand steps would hide what the falling rate gains.
            self.average = checkpoint.Average(self.model)
        number = self.step * self.workers + self.rank
        gen = torch.Generator(device=args.device).manual_seed(args.seed * 1_000_003 + number)
        with torch.autocast(
            torch.device(args.device).type, torch.bfloat16, enabled=half_precision(args.device)
        ):
            scenes, outcome = self._outcome(gen)
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        outcome.loss.backward()
        self._share()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            logger.warning("step %d: gradient not finite, left out", self.step)
        self.step += 1
        self.images += scenes.images.shape[0] * scenes.images.shape[1] * self.workers
        start = self.annealing_from if self.step > self.annealing_from else 0
        self.average.update(self.model, int(self.step - start))
        return outcome, rate

    def _outcome(self, gen: torch.Generator) -> tuple[Scenes, Outcome]:
        """The step's scenes and loss: aligning, warming, a clip or single images."""
        args = self.args
        if self.step < args.align:
            scenes = self.scenes(gen, args.batch, 1)
            return scenes, self._align(scenes.images[:, 0])
        if self.step < args.warm_steps:
            return self._warm(gen, args.batch)
        if args.clip_every and self.step % args.clip_every == 0:
            frames = int(torch.randint(3, args.frames + 1, (1,), generator=gen, device=gen.device))
            scenes = self.scenes(gen, max(1, args.batch // frames), frames)
            return scenes, clip_step(self.model, scenes, max(2, args.objects * 2 // 3), gen)
        scenes = self.scenes(gen, args.batch, 1)
        return scenes, image_step(self.model, scenes, args.objects, gen)

    def _align(self, images: torch.Tensor) -> Outcome:
        """Distance between the encoder's features and the teacher's, each level in units of its spread."""
        with torch.no_grad():
            targets = encode(self.teacher, images).levels
        found = encode(self.model, images).levels
        losses = [
            F.mse_loss(a.float(), b.float()) / b.float().var() for a, b in zip(found, targets, strict=True)
        ]
        loss = torch.stack(losses).mean()
        return Outcome(loss, {"aligned": float(loss.detach())})

    def _warm(self, gen: torch.Generator, batch: int) -> tuple[Scenes, Outcome]:
        """Train the decoder on images encoded without a gradient, each used for some steps.

        It learns what prompts mean for a fifth of the cost; from scratch with the encoder the same
        takes many times longer.
        """
        if self.cached is None or self.step % WARM_REUSE == 0:
            scenes = self.scenes(gen, max(2, batch // 2), 1)
            with torch.no_grad():
                self.cached = scenes, encode(self.model, scenes.images[:, 0])
        scenes, features = self.cached
        return scenes, image_step(self.model, scenes, self.args.objects, gen, features)

    def _share(self) -> None:
        """Average the gradients over the worker processes."""
        if self.workers == 1:
            return
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= self.workers
        parts = flat.split([g.numel() for g in grads])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def state(self) -> dict:
        """All that a resumed training needs."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state,
            "optimizer": self.optimizer.state_dict(),
            "counters": {"step": self.step, "seconds": self.seconds, "images": self.images},
        }

    def restore(self, state: dict) -> None:
        """Continue from `state`."""
        self.model.load_state_dict(state["model"])
        self.average.state = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["counters"]["step"], state["counters"]["seconds"]
        self.images = state["counters"]["images"]
        if not self.args.steps and self.args.anneal:
            self.end = self.step + self.args.anneal


def _teacher(args: argparse.Namespace) -> SAM2Base:
    teacher = build(args.size, args.teacher_config).to(args.device).eval().requires_grad_(False)
    teacher.load_state_dict(checkpoint.read_weights(args.teacher), strict=True)
    return teacher


class Log:
    """Means of the last steps, a row every 25 steps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(",".join(COLUMNS) + "\n")

    def add(self, training: Training, outcome: Outcome, rate: float) -> None:
        """Take in one step."""
        self.rows.append({"loss": float(outcome.loss.detach()), **outcome.dice})
        if training.step % 25:
            return
        means = {}
        for key in ("loss", *KINDS):
            values = [r[key] for r in self.rows if key in r and not math.isnan(r[key])]
            means[key] = f"{sum(values) / len(values):.4f}" if values else ""
        fixed = (training.step, f"{training.seconds:.0f}", training.images)
        row = [*fixed, f"{training.level:.2f}", f"{rate:.2e}", *means.values()]
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)
        logger.info(" ".join(f"{k}={v}" for k, v in zip(COLUMNS, row, strict=True)))
        self.rows.clear()


def main() -> None:
    """Train until the steps are done; resumes from --out by itself."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = options()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    if torch.device(args.device).type == "cpu":
        setattr(F, "scaled_dot_product_attention", plain_attention)  # noqa: B010
    training = Training(args)
    path = args.out / "checkpoint.pt"
    state = checkpoint.load(path, args.device)
    if state is not None:
        training.restore(state)
        logger.info("resumed at step %d", training.step)
    first = training.rank == 0
    log = Log(args.out / "log.csv")
    saved = time.monotonic()
    while training.step < training.end:
        start = time.monotonic()
        outcome, rate = training.advance()
        training.seconds += time.monotonic() - start
        if first:
            log.add(training, outcome, rate)
        if first and time.monotonic() - saved > args.save_every:
            _keep(args, path, training)
            saved = time.monotonic()
    if first:
        _keep(args, path, training)


def _keep(args: argparse.Namespace, path: Path, training: Training) -> None:
    if args.steps or not args.anneal:
        checkpoint.save(path, training.state())
    if args.export:
        checkpoint.export(training.average.state, args.export)


if __name__ == "__main__":
    main()
