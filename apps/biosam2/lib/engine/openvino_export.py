"""Converts the parts of a network for OpenVINO, checks them against torch, and keeps them beside the weights.

``python -m lib.engine.openvino_export`` converts in a process of its own, which ends with the server: the
conversion takes memory that is not given back, and a core that requests need.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from lib.child_process import end_with_server, lower_priority
from lib.engine.builder import load_network
from lib.engine.checkpoints import Weights
from lib.engine.network import Network
from lib.engine.openvino_parts import (
    ATTENTION,
    DECODER,
    ENCODER,
    FORM,
    MEMORY_ENCODER,
    TORCH_FILE,
    ConvertedPart,
    torch_tensors,
)
from lib.engine.registry import Registry
from lib.errors import CheckpointError
from lib.files import sync

logger = logging.getLogger(__name__)

# OpenVINO keeps sums in bf16 that torch's autocast keeps in fp32: at random weights its error was 1.1 to 2.3
# times torch's own.
_TIMES_TORCH = 4.0
_SMALLEST_LIMIT = 1e-3
_MEMORIES, _POINTERS, _POINTS = 2, 3, 2


class _Encoder(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps: list[torch.Tensor] = self.network.forward_image(image)["backbone_fpn"]
        return tuple(maps[-self.network.num_feature_levels :])


class _Attention(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.attention = network.memory_attention

    def forward(
        self,
        curr: torch.Tensor,
        curr_pos: torch.Tensor,
        memory: torch.Tensor,
        memory_pos: torch.Tensor,
        pointers: torch.Tensor,
        pointers_pos: torch.Tensor,
    ) -> torch.Tensor:
        result: torch.Tensor = self.attention(
            curr=curr,
            curr_pos=curr_pos,
            memory=torch.cat([memory, pointers]),
            memory_pos=torch.cat([memory_pos, pointers_pos]),
            num_obj_ptr_tokens=pointers.shape[0],
        )
        return result


class _MemoryEncoder(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.encoder = network.memory_encoder

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.encoder(features, mask, skip_mask_sigmoid=True)["vision_features"]
        return result


class _Decoder(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.decoder = network.sam_mask_decoder
        self.position = network.sam_prompt_encoder.get_dense_pe()

    def forward(
        self, embedding: torch.Tensor, sparse: torch.Tensor, dense: torch.Tensor, *high_res: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        masks: tuple[torch.Tensor, ...] = self.decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self.position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=list(high_res),
        )
        return masks


_Inputs = tuple[torch.Tensor, ...]


def _examples(network: Network) -> Iterator[tuple[str, nn.Module, _Inputs, list[list[int]]]]:
    """Each part with inputs as the network makes them, and their shapes; -1 for any size."""
    torch.manual_seed(0)
    size = network.image_size
    image = torch.randn(1, 3, size, size)
    encoder = _Encoder(network)
    yield ENCODER, encoder, (image,), [list(image.shape)]

    *high_res, embedding = encoder(image)
    width, grid = embedding.shape[1], embedding.shape[-1]
    features = embedding.flatten(2).permute(2, 0, 1)
    places = torch.randn(_MEMORIES * grid * grid, 1, network.mem_dim)
    pointers = torch.randn(_POINTERS, 1, network.mem_dim)
    inputs = (features, torch.randn_like(features), places, places, pointers, pointers)
    fixed, free = [grid * grid, 1, width], [-1, 1, network.mem_dim]
    yield ATTENTION, _Attention(network), inputs, [fixed, fixed, free, free, free, free]

    mask = (torch.rand(1, 1, size, size) > 0.5).float() * 20 - 10
    shapes = [list(embedding.shape), list(mask.shape)]
    yield MEMORY_ENCODER, _MemoryEncoder(network), (embedding, mask), shapes

    sparse = torch.randn(1, _POINTS, width)
    inputs = (embedding, sparse, torch.randn_like(embedding), *high_res)
    shapes = [[-1, *value.shape[1:]] for value in inputs]
    shapes[1][1] = -1
    yield DECODER, _Decoder(network), inputs, shapes


def convert(network: Network, dtype: torch.dtype, folder: Path) -> None:
    """Converts all parts of a network into a folder, which exists complete or not at all.

    Args:
        network: Network on the CPU.
        dtype: Number format that they will run in.
        folder: Folder to make.

    Raises:
        OSError: The folder cannot be written.
        CheckpointError: A part differs from torch by more than the number format explains.
        Exception: whatever the conversion of an unusual network raises.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / "lock"):
        if folder.exists():
            return
        for stale in folder.parent.glob(".new-*"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        try:
            with torch.no_grad():
                for name, part, inputs, shapes in _examples(network):
                    _convert_part(part.eval(), inputs, shapes, dtype, temporary / f"{name}.xml")
            _save_for_torch(network, dtype, temporary / TORCH_FILE)
            for path in temporary.iterdir():
                sync(path)
            temporary.chmod(0o755)
            temporary.replace(folder)
            for stale in set(folder.parent.glob(f"{folder.name.removesuffix(f'-{FORM}')}*")) - {folder}:
                shutil.rmtree(stale, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _save_for_torch(network: Network, dtype: torch.dtype, path: Path) -> None:
    """Writes the weights as a server has them, which it reads where OpenVINO fails."""
    frozen = copy.deepcopy(network).to(memory_format=torch.channels_last)
    frozen.freeze(dtype)
    torch.save({name: tensor.detach() for name, tensor in torch_tensors(frozen).items()}, path)


def _convert_part(
    part: nn.Module, inputs: _Inputs, shapes: Sequence[list[int]], dtype: torch.dtype, path: Path
) -> None:
    # Without this module, which comes with OpenVINO and sends reports of its use, a stub takes its place.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino
    from openvino.preprocess import PrePostProcessor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: its checks of shapes are constants, as the shapes are
        model = openvino.convert_model(part, example_input=inputs, input=list(shapes))
    element = openvino.Type.bf16 if dtype == torch.bfloat16 else openvino.Type.f32
    typed = PrePostProcessor(model)
    for index in range(len(model.inputs)):
        typed.input(index).tensor().set_element_type(element)
    for index in range(len(model.outputs)):
        typed.output(index).tensor().set_element_type(element)
    # Of a weight in fp16, bf16 keeps as much as of one in fp32; it takes half of the memory.
    openvino.save_model(typed.build(), path, compress_to_fp16=dtype == torch.bfloat16)
    error, limit = _error(part, ConvertedPart(path, dtype), inputs, dtype)
    logger.info("%s: relative error %.2g, limit %.2g", path.stem, error, limit)
    if not error <= limit:
        raise CheckpointError(f"{path.stem} differs from torch by {error:.2g} (at most {limit:.2g})")


def _error(
    part: nn.Module, converted: ConvertedPart, inputs: _Inputs, dtype: torch.dtype
) -> tuple[float, float]:
    """Largest relative error over the outputs, and what is allowed: a few times that of torch's format."""
    exact = _outputs(part(*inputs))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        rounded = _outputs(part(*inputs))
    own = max(map(_difference, rounded, exact))
    error = max(map(_difference, converted(*inputs), exact))
    return error, max(_TIMES_TORCH * own, _SMALLEST_LIMIT)


def _outputs(result: Any) -> Sequence[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _difference(value: torch.Tensor, exact: torch.Tensor) -> float:
    return float((value.float() - exact).norm() / exact.norm())


def convert_in_child(weights: Weights, model_dir: Path, dtype: torch.dtype, folder: Path) -> None:
    """Converts in a process of its own, at low priority, and waits for it.

    Raises:
        CheckpointError: The conversion failed; the text says why.
    """
    task = {
        "weights": asdict(weights),
        "model_dir": model_dir,
        "dtype": str(dtype).removeprefix("torch."),
        "folder": folder,
    }
    command = [sys.executable, "-m", __name__, json.dumps(task, default=str)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CheckpointError(f"conversion for OpenVINO failed: {lines[-1]}")


def main() -> None:
    """Converts what the command line says (:func:`convert_in_child`)."""
    end_with_server()
    lower_priority()
    task = json.loads(sys.argv[1])
    fields = task["weights"]
    config = fields["config"] and Path(fields["config"])
    weights = Weights(**{**fields, "path": Path(fields["path"]), "config": config})
    network = load_network(weights, Registry(Path(task["model_dir"])), "cpu")
    convert(network, getattr(torch, task["dtype"]), Path(task["folder"]))


if __name__ == "__main__":
    main()
