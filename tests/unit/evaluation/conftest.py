"""Folders of phantoms, and stand-ins for a network: one that always knows, one that never finds anything.

The stand-ins exist in these tests alone. They prove what the evaluation makes of answers, not that any
network gives them.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.engine.predictor import FrameMask
from lib.evaluation.options import CommandOptions, EvaluationOptions
from lib.evaluation.protocol import CaseContext, MetricRules
from lib.evaluation.runner import EvaluatedModel
from tests.support import phantoms
from tests.support.studies import write_nifti, write_picture


class Stub:
    """A predictor without a network."""

    image_size = 64
    runtime = SimpleNamespace(type="cpu", dtype=torch.float32)

    def __init__(self):
        self.calls = []

    def new_bank(self, policy="fifo"):
        return SimpleNamespace(value=0, policy="fifo", joint_key=None, forget_tracked=lambda: None)


class Empty(Stub):
    """Draws nothing, ever."""

    def segment(self, frames, index, prompts, bank=None):
        self.calls.append((frames.digest, index))
        return FrameMask(np.zeros((frames.height, frames.width), bool), 0.1, 0.1)

    def track(self, frames, index, bank, reverse, prompts=None):
        return self.segment(frames, index, None)


class Perfect(Stub):
    """Draws the truth of the object that the prompts lie on."""

    def __init__(self, *sequences):
        super().__init__()
        self.sequences = {sequence.frames.digest: sequence for sequence in sequences}

    def segment(self, frames, index, prompts, bank=None):
        self.calls.append((frames.digest, index))
        labels = self.sequences[frames.digest].labels(index)
        value = _asked(labels, prompts)
        if bank is not None:
            bank.value = value
        return FrameMask(labels == value, 0.9, 0.9)

    def track(self, frames, index, bank, reverse, prompts=None):
        self.calls.append((frames.digest, index))
        return FrameMask(self.sequences[frames.digest].labels(index) == bank.value, 0.9, 0.9)


def _asked(labels, prompts):
    if prompts.mask is not None:
        return int(np.bincount(labels[prompts.mask]).argmax())
    if prompts.box is not None:
        x0, y0, x1, y1 = (int(edge) for edge in prompts.box)
        inside = labels[y0:y1, x0:x1]
        return int(np.bincount(inside[inside > 0]).argmax())
    x, y = prompts.points[0].astype(int)
    return int(labels[y, x])


def label_map(phantom):
    labels = np.zeros(phantom.image.shape[:3], np.uint8)
    for value, mask in enumerate(phantom.objects.values(), start=1):
        labels[mask] = value
    return labels


def write_study(folder: Path, volumes=("ct",), pictures=("colour",)) -> Path:
    """A datastore with labels of phantoms, and the record that MONAI Label keeps of them."""
    (folder / "labels" / "final").mkdir(parents=True)
    record = {}
    for name in (*volumes, *pictures):
        phantom = phantoms.ct() if name.startswith("ct") else phantoms.colour_picture()
        writing = [folder / name, folder / "labels" / "final" / name]
        for path, array in zip(writing, (phantom.image, label_map(phantom)), strict=True):
            if name in volumes:
                write_nifti(path.with_name(f"{name}.nii.gz"), array, phantom.affine)
            else:
                write_picture(path.with_name(f"{name}.png"), array)
        info = [{"name": label, "idx": value} for value, label in enumerate(phantom.objects, start=1)]
        record[name] = {"labels": {"final": {"info": {"label_info": info}}}}
    (folder / "datastore_v2.json").write_text(json.dumps({"objects": record}))
    return folder


def write_clip(folder: Path, annotated=range(6)) -> Path:
    """Six frames of a bright disc that moves to the right, with masks on some."""
    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(6):
        disc = phantoms.ellipsoid((90, 70), (25 + 5 * index, 40), (12, 14))[:, :, None]
        frame = np.where(disc, 210, 60).astype(np.uint8)
        write_picture(folder / "frames" / f"{index:03d}.png", np.repeat(frame[..., None], 3, axis=-1))
        if index in annotated:
            write_picture(folder / "masks" / f"{index:03d}.png", disc.astype(np.uint8))
    return folder


def context(sequence, options, rules=None) -> CaseContext:
    return CaseContext("a", sequence, options, rules or MetricRules())


def changed(options: CommandOptions, **fields) -> CommandOptions:
    return options.model_copy(update=fields)


@pytest.fixture
def study(tmp_path) -> Path:
    return write_study(tmp_path / "study")


@pytest.fixture
def options(study, tmp_path) -> EvaluationOptions:
    return EvaluationOptions(data=study, output=tmp_path / "results")


def stub_model(predictor, name="stub", sha256="0" * 64) -> EvaluatedModel:
    return EvaluatedModel(name, sha256, predictor)
