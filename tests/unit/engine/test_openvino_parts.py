"""OpenVINO computes what torch computes, and torch goes on where it cannot."""

import shutil

import numpy as np
import pytest
import torch

from lib.engine import openvino_parts
from lib.engine.builder import build_network
from lib.engine.checkpoints import Weights
from lib.engine.network import EmbeddingCache
from lib.engine.openvino_parts import COMPILED_FOLDER, ConvertedPart, is_chosen, parts_folder, torch_tensors
from lib.engine.predictor import Predictor
from lib.engine.propagation import propagate
from lib.engine.runtime import Runtime
from lib.errors import CheckpointError
from lib.prompts.types import FramePrompts
from tests.support.server import APP
from tests.unit.engine.conftest import SIZE, make_tiny

pytest.importorskip("openvino", reason="OpenVINO is not installed (requirements-openvino.txt)")
from lib.engine import openvino_export

BUNDLED = APP / "model" / "biosam2_mini.yaml"


@pytest.fixture(scope="module")
def parts(tmp_path_factory, tiny):
    """The converted parts of ``tiny``."""
    folder = tmp_path_factory.mktemp("converted") / "parts"
    openvino_export.convert(tiny, torch.float32, folder)
    return folder


def predictor_of(network, folder=None) -> Predictor:
    runtime = Runtime(torch.device("cpu"), "fp32")
    predictor = Predictor(network, runtime, EmbeddingCache(1 << 30), "tiny", "1")
    if folder is not None:
        predictor.use_openvino(folder)
    return predictor


def masks(predictor, frames) -> np.ndarray:
    """Objects of a box and of clicks on two frames, followed to both ends: prompts and memories vary."""
    box = FramePrompts(np.zeros((0, 2)), np.zeros(0), box=np.array([20.0, 30, 90, 100]))
    clicks = FramePrompts([[40.0, 70], [60, 60]], [1, 0])
    objects = [{2: box}, {0: clicks, 3: FramePrompts([[64.0, 64]], [1])}]
    found = propagate(predictor, frames, objects, ends=False)
    return np.stack([result.mask for _, _, result in sorted(found, key=lambda step: step[:2])])


def test_masks_are_those_of_torch(parts, tiny, frames):
    expected = masks(predictor_of(tiny), frames)
    fast = make_tiny()
    found = masks(predictor_of(fast, parts), frames)
    assert len(found) == 12
    assert (found != expected).mean() < 1e-4
    # Nothing of torch computes: its parts are gone from the network that OpenVINO serves.
    served = predictor_of(fast, parts)
    for part in ("image_encoder", "memory_attention", "memory_encoder"):
        for parameter in getattr(fast, part).parameters():
            parameter.data.fill_(float("nan"))
    assert np.array_equal(masks(served, frames), found)
    several = predictor_of(fast, parts).outputs(
        frames, 0, [FramePrompts([[40.0, 70]], [1]), FramePrompts([[80.0, 20]], [1])]
    )
    alone = predictor_of(tiny).outputs(frames, 0, [FramePrompts([[80.0, 20]], [1])])
    assert np.allclose(several.logits[1], alone.logits[0], atol=1e-3)


def test_torch_goes_on_with_the_weights_on_disk(parts, tmp_path, tiny, frames, monkeypatch, caplog):
    folder = shutil.copytree(parts, tmp_path / "parts")
    expected = masks(predictor_of(tiny), frames)
    network = make_tiny()
    in_memory = {name: tensor.data_ptr() for name, tensor in torch_tensors(network).items()}
    predictor = predictor_of(network, folder)
    assert not any(in_memory[name] == tensor.data_ptr() for name, tensor in torch_tensors(network).items())

    def fail(*inputs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ConvertedPart, "__call__", fail)
    shutil.rmtree(folder)  # as with a version that has gone out of service
    assert np.array_equal(masks(predictor, frames), expected)
    assert caplog.text.count("OpenVINO failed, torch goes on: out of memory") == 4


def test_parts_for_volumes_are_compiled_when_a_volume_needs_them(parts, frames, monkeypatch):
    made = []
    monkeypatch.setattr(
        openvino_parts, "ConvertedPart", lambda *arguments: made.append(ConvertedPart(*arguments)) or made[-1]
    )
    predictor = predictor_of(make_tiny(), parts)
    predictor.segment(frames, 0, FramePrompts([[40.0, 70]], [1]))
    assert ["_request" in vars(part) for part in made] == [True, False, False, True]
    masks(predictor, frames)
    assert all("_request" in vars(part) for part in made)


def test_what_was_compiled_is_used_at_the_next_start_unless_it_is_damaged(parts, frames):
    expected = masks(predictor_of(make_tiny(), parts), frames)
    compiled = sorted((parts / COMPILED_FOLDER).glob("*.blob"))
    assert len(compiled) == 4
    written = [path.stat().st_mtime_ns for path in compiled]
    assert np.array_equal(masks(predictor_of(make_tiny(), parts), frames), expected)
    assert [path.stat().st_mtime_ns for path in compiled] == written
    for path in compiled:
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1000])
    assert np.array_equal(masks(predictor_of(make_tiny(), parts), frames), expected)


def test_the_bundled_architecture_converts(tmp_path, frames):
    torch.manual_seed(0)
    network = build_network(BUNDLED, SIZE)
    dtype = Runtime(torch.device("cpu"), "auto").dtype
    # The conversion itself compares with torch, and raises. What differs from other networks is the encoder.
    openvino_export.convert(network, dtype, tmp_path / "parts")
    predictor = Predictor(network, Runtime(torch.device("cpu"), "auto"), EmbeddingCache(0), "small", "1")
    predictor.use_openvino(tmp_path / "parts")
    assert predictor.segment(frames, 0, FramePrompts([[40.0, 70]], [1])).mask.shape == (SIZE, SIZE)


def test_parts_of_an_earlier_form_are_replaced(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(openvino_export, "_examples", lambda network: [])
    weights = Weights("mine", tmp_path / "mine.pt", None, None, None, "")
    folder, other = (parts_folder(weights, version * 64, SIZE, torch.float32) for version in "ab")
    earlier = folder.with_name(folder.name.rpartition("-")[0])
    for kept in (earlier, other):
        kept.mkdir(parents=True)
    openvino_export.convert(tiny, torch.float32, folder)
    assert sorted(path for path in folder.parent.iterdir() if path.is_dir()) == sorted([folder, other])


def test_failures_leave_torch_in_place(tmp_path, tiny, frames, monkeypatch, caplog):
    monkeypatch.setattr(openvino_export, "_TIMES_TORCH", 0.0)
    monkeypatch.setattr(openvino_export, "_SMALLEST_LIMIT", 0.0)
    # A small part: the image encoder takes the longest.
    part = next(item for item in openvino_export._examples(tiny) if item[0] == openvino_export.MEMORY_ENCODER)
    monkeypatch.setattr(openvino_export, "_examples", lambda network: [part])
    with pytest.raises(CheckpointError, match="memory_encoder differs from torch by"):
        openvino_export.convert(tiny, torch.float32, tmp_path / "parts")
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]

    network = make_tiny()
    expected = predictor_of(tiny).segment(frames, 0, FramePrompts([[40.0, 70]], [1])).mask
    predictor = predictor_of(network)
    with pytest.raises((OSError, RuntimeError)):
        predictor.use_openvino(tmp_path / "parts")
    assert np.array_equal(predictor.segment(frames, 0, FramePrompts([[40.0, 70]], [1])).mask, expected)


def test_who_uses_openvino(tmp_path, caplog):
    assert is_chosen("auto", "cpu")
    assert is_chosen("openvino", "cpu")
    assert not is_chosen("torch", "cpu")
    assert not is_chosen("openvino", "cuda")
    weights = Weights("mine", tmp_path / "mine.pt", None, None, None, "")
    names = {
        parts_folder(weights, version, size, dtype)
        for version in ("a" * 64, "b" * 64)
        for size in (256, 512)
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert len(names) == 8
    assert {name.parent.parent for name in names} == {tmp_path}
