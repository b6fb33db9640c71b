"""OpenVINO in place of torch for the parts of a network that take the time, on a CPU.

The parts were converted beforehand (``lib.engine.openvino_export``). Each stands in for a method of the
network, which it falls back to where OpenVINO fails.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lib.engine.checkpoints import Weights
from lib.engine.model_versions import OPENVINO_FOLDER
from lib.engine.network import Network
from lib.engine.registry import DeviceType
from lib.engine.runtime import is_cancelled, raise_if_cancelled, release_free_memory
from lib.settings import RuntimeName

logger = logging.getLogger(__name__)

# How often a part that runs looks whether its result is still needed.
_POLL_MS = 5

# Raised when parts are converted in another way: what was converted before is not used any more.
FORM = 3

ENCODER, ATTENTION, MEMORY_ENCODER, DECODER = PARTS = (
    "image_encoder",
    "memory_attention",
    "memory_encoder",
    "mask_decoder",
)

# Compiled before requests need them. The others compute in volumes alone, and take 230 MB at 1024 px.
_AT_ONCE = (ENCODER, DECODER)
TORCH_FILE = "torch.pt"
# Where OpenVINO keeps what it has compiled: at 1024 px it takes 7 CPU seconds once, and 0.3 at later starts.
COMPILED_FOLDER = "compiled"


def is_chosen(runtime: RuntimeName, device: DeviceType) -> bool:
    """Whether ``--conf runtime`` asks for OpenVINO on a device, and it can be had."""
    if runtime in ("torch", "compile") or device != "cpu":
        return False
    installed = importlib.util.find_spec("openvino") is not None
    if runtime == "openvino" and not installed:
        logger.warning("OpenVINO is not installed, torch is used: pip install -r requirements-openvino.txt")
    return installed


def parts_folder(weights: Weights, version: str, image_size: int, dtype: torch.dtype) -> Path:
    """Where converted parts lie: beside the checkpoint, for each content, input size and number format.

    Args:
        weights: Checkpoint.
        version: SHA-256 of the checkpoint.
        image_size: Side of the network's input in pixels.
        dtype: Number format.
    """
    name = f"{version[:16]}-{image_size}-{str(dtype).removeprefix('torch.')}-{FORM}"
    return weights.path.parent / OPENVINO_FOLDER / name


class ConvertedPart:
    """A converted part, compiled when it first runs. It is used by one thread at a time.

    Args:
        path: File of the converted part (.xml).
        dtype: Number format of its inputs, its outputs and its computation.
        threads: CPU threads; 0 for OpenVINO's own choice.
        compiled: Folder for what is compiled; None where it is compiled at each start.

    Raises:
        RuntimeError: The file is missing or damaged.
    """

    def __init__(self, path: Path, dtype: torch.dtype, threads: int = 0, compiled: Path | None = None):
        import openvino

        self._bf16 = dtype == torch.bfloat16
        self._dtype = dtype
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if self._bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if path.stem == ATTENTION:
            # What OpenVINO fuses to one step took 1.3 times as long as the products in blocks.
            options["SNIPPETS_MODE"] = "DISABLE"
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        if compiled:
            options["CACHE_DIR"] = str(compiled)
        self._tensor, self._type = openvino.Tensor, openvino.Type
        core = openvino.Core()
        self._compile = partial(core.compile_model, core.read_model(path), "CPU", options)

    @cached_property
    def _request(self) -> Any:
        request = self._compile().create_infer_request()
        del self._compile
        # What compiling took would otherwise stay beside what running takes.
        release_free_memory()
        return request

    def compile(self) -> None:
        """Makes the part ready to run.

        Raises:
            RuntimeError: OpenVINO failed.
        """
        _ = self._request

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Runs the part on tensors of its inputs' shapes.

        Raises:
            Cancelled: The result is not needed any more.
            RuntimeError: OpenVINO failed.
        """
        # The tensors share their memory with OpenVINO, and live until it has run.
        kept = [value.detach().to(self._dtype).contiguous() for value in inputs]
        self._request.start_async([self._shared(value) for value in kept], share_inputs=True)
        try:
            while not self._request.wait_for(_POLL_MS):
                if is_cancelled():
                    self._request.cancel()
        except RuntimeError:
            raise_if_cancelled()
            raise
        return [self._copied(index) for index in range(len(self._request.model_outputs))]

    def _shared(self, value: torch.Tensor) -> Any:
        if not self._bf16:
            return self._tensor(value.numpy(), shared_memory=True)
        return self._tensor(value.view(torch.int16).numpy(), list(value.shape), self._type.bf16)

    def _copied(self, index: int) -> torch.Tensor:
        tensor = self._request.get_output_tensor(index)
        if not self._bf16:
            return torch.from_numpy(np.array(tensor.data))
        return torch.from_numpy(np.array(tensor.data.view(np.int16))).view(torch.bfloat16)


def install_parts(network: Network, folder: Path, dtype: torch.dtype, threads: int = 0) -> Callable[[], None]:
    """Compiles the converted parts of a network that each request needs.

    From then on the network's own weights lie in memory only where torch still computes with them.

    Args:
        network: Network on the CPU with the weights that were converted.
        folder: Folder of the converted parts.
        dtype: Number format.
        threads: CPU threads; 0 for OpenVINO's own choice.

    Returns:
        Function that puts the parts in the place of the network's methods, while nothing else uses it.

    Raises:
        OSError, RuntimeError: A file is missing or damaged, or OpenVINO failed.
    """
    compiled = folder / COMPILED_FOLDER if os.access(folder, os.W_OK) else None
    parts = {name: ConvertedPart(folder / f"{name}.xml", dtype, threads, compiled) for name in PARTS}
    for name in _AT_ONCE:
        parts[name].compile()
    replacements = list(_replacements(network, parts))
    # What is mapped takes no memory until torch reads it.
    mapped = torch.load(folder / TORCH_FILE, mmap=True, weights_only=True)

    def put_in_place() -> None:
        for name, tensor in torch_tensors(network).items():
            tensor.data = mapped[name]
        for owner, method, part in replacements:
            setattr(owner, method, _with_fallback(part, getattr(owner, method)))

    return put_in_place


def torch_tensors(network: Network) -> dict[str, torch.Tensor]:
    """Weights and tables of the modules whose methods OpenVINO computes, by name."""
    modules = {
        ENCODER: network.image_encoder,
        ATTENTION: network.memory_attention,
        MEMORY_ENCODER: network.memory_encoder,
        DECODER: network.sam_mask_decoder,
    }
    return {
        f"{part}.{name}": tensor
        for part, module in modules.items()
        for name, tensor in chain(module.named_parameters(), module.named_buffers())
    }


def _replacements(
    network: Network, parts: Mapping[str, ConvertedPart]
) -> Iterator[tuple[nn.Module, str, Callable[..., Any]]]:
    """Owner and name of each method that a part stands in for, and the part with the method's arguments."""

    def encode(image: torch.Tensor) -> dict[str, Any]:
        return {"backbone_fpn": _by_row(parts[ENCODER], image)}

    def attend(
        curr: Any, curr_pos: Any, memory: torch.Tensor, memory_pos: torch.Tensor, num_obj_ptr_tokens: int
    ) -> torch.Tensor:
        split = [len(memory) - num_obj_ptr_tokens, num_obj_ptr_tokens]
        (places, pointers), (places_pos, pointers_pos) = memory.split(split), memory_pos.split(split)
        inputs = (curr[0], curr_pos[0], places, places_pos, pointers, pointers_pos)
        return _by_row(parts[ATTENTION], *inputs, dim=1)[0]

    def remember(pix_feat: torch.Tensor, masks: torch.Tensor, skip_mask_sigmoid: bool) -> dict[str, Any]:
        (features,) = _by_row(parts[MEMORY_ENCODER], pix_feat, masks)
        position = network.memory_encoder.position_encoding(features).to(features.dtype)
        return {"vision_features": features, "vision_pos_enc": [position]}

    def decode(
        image_embeddings: Any,
        image_pe: Any,
        sparse_prompt_embeddings: Any,
        dense_prompt_embeddings: Any,
        repeat_image: bool,
        high_res_features: Any,
    ) -> tuple[torch.Tensor, ...]:
        prompts = (sparse_prompt_embeddings, dense_prompt_embeddings)
        return tuple(parts[DECODER](image_embeddings, *prompts, *high_res_features))

    yield network, "forward_image", encode
    yield network.memory_attention, "forward", attend
    yield network.memory_encoder, "forward", remember
    yield network.sam_mask_decoder, "predict_masks", decode


def _by_row(part: ConvertedPart, *inputs: torch.Tensor, dim: int = 0) -> list[torch.Tensor]:
    """Runs a part that takes one row at a time: its work fills the machine already."""
    count = inputs[0].shape[dim]
    if count == 1:
        return part(*inputs)
    rows = [part(*(value.narrow(dim, row, 1) for value in inputs)) for row in range(count)]
    return [torch.cat(outputs, dim=dim) for outputs in zip(*rows, strict=True)]


def _with_fallback(part: Callable[..., Any], torch_method: Callable[..., Any]) -> Callable[..., Any]:
    failed = False

    def run(*args: Any, **options: Any) -> Any:
        nonlocal failed
        if not failed:
            try:
                return part(*args, **options)
            except RuntimeError as error:
                failed = True
                logger.error("OpenVINO failed, torch goes on: %s", error)
        return torch_method(*args, **options)

    return run
