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

from pretraining import checkpoint
from pretraining.network import Features, build, encode, plain_attention, set_image_size
from pretraining.real import RealStack, load_stacks, real_scenes
from pretraining.scenes import Scenes, concatenate
from pretraining.steps import Outcome, clip_step, image_step
from pretraining.synthetic import synthetic_scenes

logger = logging.getLogger("pretraining")

SMALL, FULL = 128, 256
EASIEST = 0.3  # level of the first scenes
WARM_RATE = 1e-3
WARM_REUSE = 10  # steps that share one batch of encoded images while the decoder learns alone
KINDS = ("box", "box+", "click", "clicks", "corrected", "tracked", "presence")
COLUMNS = ("step", "seconds", "images", "size", "level", "rate", "loss", *KINDS)


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint.pt and log.csv")
    parser.add_argument("--real", type=Path, help="data folder with a manifest.json; else synthetic only")
    parser.add_argument("--real-share", type=float, default=0.35)
    parser.add_argument("--steps", type=int, help="length of the training; repeatable by --seed")
    parser.add_argument("--minutes", type=float, help="length as time spent, where the speed is not known")
    parser.add_argument("--batch", type=int, default=8, help="images a step at 256 px; twice that at 128")
    parser.add_argument("--objects", type=int, default=6, help="prompted objects an image, even")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--warm-steps", type=int, default=400, help="steps that train the decoder alone")
    parser.add_argument("--small-until", type=float, default=0.3, help="share of the training at 128 px")
    parser.add_argument("--mixed-until", type=float, default=0.6, help="share after which all is at 256 px")
    parser.add_argument("--ramp", type=float, default=0.35, help="share after which scenes are hardest")
    parser.add_argument("--clips-from", type=float, default=0.15)
    parser.add_argument("--clip-every", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints")
    parser.add_argument("--export", type=Path, help="also write the averaged weights here, in fp16")
    args = parser.parse_args(argv)
    if (args.steps is None) == (args.minutes is None):
        parser.error("give one of --steps and --minutes")
    return args


class Training:
    """State of a training and what one step does to it."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.workers = dist.get_world_size() if dist.is_initialized() else 1
        self.model = build(FULL).to(args.device).train()
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98), fused=True)
        self.average = checkpoint.Average(self.model)
        self.step, self.seconds, self.images = 0, 0.0, 0
        self.clock = 0.0  # seconds as all workers agree on them
        self.cached: tuple[Scenes, Features] | None = None
        self.stacks: list[RealStack] = load_stacks(args.real) if args.real else []

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        if self.args.steps:
            return self.step / self.args.steps
        return self.clock / (60 * self.args.minutes)

    @property
    def size(self) -> int:
        """Side of the images now."""
        if self.progress < self.args.small_until:
            return SMALL
        if self.progress < self.args.mixed_until:
            return SMALL if (self.step // 4) % 2 else FULL
        return FULL

    @property
    def level(self) -> float:
        """Difficulty of the scenes now."""
        return min(1.0, EASIEST + (1 - EASIEST) * self.progress / self.args.ramp)

    def rate(self) -> float:
        """Learning rate now: WARM_RATE, then a warm-up and half a cosine down to 3 per cent."""
        after = self.step - self.args.warm_steps
        if after < 0:
            return WARM_RATE * min(1.0, (self.step + 1) / 40)
        warm = min(1.0, (after + 1) / 100)
        return self.args.rate * warm * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress))))

    def scenes(self, gen: torch.Generator, images: int, frames: int) -> Scenes:
        """A mixed batch."""
        share = self.args.real_share * min(1.0, 2 * self.level) if self.stacks else 0.0
        exact = images * share
        chance = float(torch.rand(1, generator=gen, device=gen.device))
        real = min(images, int(exact) + int(chance < exact - int(exact)))
        parts = []
        if images > real:
            parts.append(
                synthetic_scenes(gen, images - real, self.model.image_size, self.level, frames=frames)
            )
        if real:
            parts.append(real_scenes(self.stacks, gen, real, self.model.image_size, frames=frames))
        return concatenate(parts)

    def advance(self) -> tuple[Outcome, float]:
        """One optimisation step. Returns what came of it and the learning rate."""
        args = self.args
        number = self.step * self.workers + self.rank
        gen = torch.Generator(device=args.device).manual_seed(args.seed * 1_000_003 + number)
        size = self.size
        set_image_size(self.model, size)
        batch = args.batch * (2 if size == SMALL else 1)
        is_clip = self.progress >= args.clips_from and self.step % args.clip_every == 0
        kind = torch.device(args.device).type
        with torch.autocast(kind, torch.bfloat16):
            if self.step < args.warm_steps:
                scenes, outcome = self._warm(gen, batch)
            elif is_clip:
                scenes = self.scenes(gen, max(2, batch // 4), 4)
                outcome = clip_step(self.model, scenes, max(2, args.objects * 2 // 3), gen)
            else:
                scenes = self.scenes(gen, batch, 1)
                outcome = image_step(self.model, scenes, args.objects, gen)
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
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
        self.average.update(self.model, self.step)
        return outcome, rate

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
        """Average the gradients and the clock over the worker processes."""
        if self.workers == 1:
            self.clock = self.seconds
            return
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        grads = [p.grad for p in parameters]
        clock = torch.tensor([self.seconds], device=grads[0].device)
        flat = torch.cat([g.flatten() for g in grads] + [clock])
        dist.all_reduce(flat)
        flat /= self.workers
        self.clock = self.seconds = float(flat[-1])
        parts = flat[:-1].split([g.numel() for g in grads])
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
        self.clock = self.seconds


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
        fixed = (training.step, f"{training.seconds:.0f}", training.images, training.model.image_size)
        row = [*fixed, f"{training.level:.2f}", f"{rate:.2e}", *means.values()]
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)
        logger.info(" ".join(f"{k}={v}" for k, v in zip(COLUMNS, row, strict=True)))
        self.rows.clear()


def main() -> None:
    """Train until the steps or minutes are used up; resumes from --out by itself."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = options()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    if torch.device(args.device).type == "cpu":
        F.scaled_dot_product_attention = plain_attention
    training = Training(args)
    path = args.out / "checkpoint.pt"
    state = checkpoint.load(path, args.device)
    if state is not None:
        training.restore(state)
        logger.info("resumed at step %d", training.step)
    first = training.rank == 0
    log = Log(args.out / "log.csv")
    saved = time.monotonic()
    while training.progress < 1:
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
    checkpoint.save(path, training.state())
    if args.export:
        checkpoint.export(training.average.state, args.export)


if __name__ == "__main__":
    main()
