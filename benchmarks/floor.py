"""The least that an answer can cost: the network's parts called directly, and the file written.

The same network, input size and number format as our server uses, in a process that does nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from benchmarks.checkpoint import build_network
from lib.engine.openvino_parts import install_parts
from lib.engine.runtime import Runtime

_BATCH_OF_ONE = 1
_FOREGROUND = 1


def cpu_precision() -> torch.dtype:
    """The number format of our server on this CPU."""
    return Runtime(torch.device("cpu"), "auto").dtype


class Floor:
    """SAM 2.1 tiny, called part by part.

    Args:
        checkpoint: Checkpoint of the servers.
        image_size: Side of the input in pixels.
        dtype: bfloat16 runs under autocast with channels-last weights, float32 plainly.
        device: Torch device.
        parts: Folder of the parts that OpenVINO computes; None: torch computes.
    """

    def __init__(
        self,
        checkpoint: Path,
        image_size: int,
        dtype: torch.dtype,
        device: str = "cpu",
        parts: Path | None = None,
    ) -> None:
        network: Any = build_network(image_size, checkpoint).requires_grad_(False)
        self._network = network.to(device, memory_format=torch.channels_last)
        self._device = device
        if parts is not None:
            install_parts(network, parts, dtype)()
        self._size = image_size
        self._dtype = dtype
        self._seconds: dict[str, list[float]] = {}
        for part, method in {
            "memory_attention": "_prepare_memory_conditioned_features",
            "memory_encoder": "_encode_new_memory",
            "decoder": "_forward_sam_heads",
        }.items():
            setattr(network, method, self._timed(part, getattr(network, method)))

    def click(self, seed: int = 0) -> dict[str, float]:
        """Encode one slice and decode one click on it.

        Returns:
            Seconds of ``encoder`` and ``decoder``.
        """
        nothing: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        image = self._image(seed)
        with self._running():
            self._track(0, 1, self._encode(image), nothing, False)
        return {part: self._seconds[part][-1] for part in ("encoder", "decoder")}

    def propagation(self, slices: int) -> dict[str, float]:
        """A click on the first slice, followed forward over all, as the servers do.

        Returns:
            Seconds per slice, all parts together (``total``) and each part's share.
        """
        memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        images = [self._image(frame) for frame in range(slices)]
        with self._running():
            started = time.perf_counter()
            for frame, image in enumerate(images):
                output = self._track(frame, slices, self._encode(image), memory, True)
                memory["non_cond_frame_outputs" if frame else "cond_frame_outputs"][frame] = output
            total = time.perf_counter() - started
        shares = {part: sum(values) / slices for part, values in self._seconds.items()}
        return {"total": total / slices, **shares}

    def _image(self, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        image = torch.rand(_BATCH_OF_ONE, 3, self._size, self._size, generator=generator)
        return image.to(self._device, memory_format=torch.channels_last)

    def _encode(self, image: torch.Tensor) -> dict[str, Any]:
        encoded = self._timed("encoder", self._network.forward_image)(image)
        if "vision_pos_enc" not in encoded:  # converted for OpenVINO: the app computes it where it is read
            position = self._network.image_encoder.neck.position_encoding
            encoded["vision_pos_enc"] = [position(level).to(level.dtype) for level in encoded["backbone_fpn"]]
        return encoded

    def _track(
        self, frame: int, count: int, features: dict[str, Any], memory: dict[str, Any], remember: bool
    ) -> dict[str, Any]:
        _, maps, positions, sizes = self._network._prepare_backbone_features(features)
        centre = self._size / 2
        click = {
            "point_coords": torch.tensor([[[centre, centre]]], device=self._device),
            "point_labels": torch.tensor([[_FOREGROUND]], dtype=torch.int32, device=self._device),
        }
        return self._network.track_step(
            frame_idx=frame,
            is_init_cond_frame=frame == 0,
            current_vision_feats=maps,
            current_vision_pos_embeds=positions,
            feat_sizes=sizes,
            point_inputs=click if frame == 0 else None,
            mask_inputs=None,
            output_dict=memory,
            num_frames=count,
            run_mem_encoder=remember,
        )

    @contextmanager
    def _running(self) -> Iterator[None]:
        self._seconds.clear()
        enabled = self._dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self._device, dtype=self._dtype, enabled=enabled):
            yield

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **kwargs)
            if self._device != "cpu":
                torch.cuda.synchronize()
            self._seconds.setdefault(part, []).append(time.perf_counter() - started)
            return result

        return run


def write_answer(shape: tuple[int, int, int], folder: Path) -> float:
    """Seconds to write an empty uint8 mask of ``shape`` ([i, j, k]) as the raw NRRD that viewers ask for."""
    mask = np.zeros(shape, dtype=np.uint8)
    started = time.perf_counter()
    image = sitk.GetImageFromArray(np.transpose(mask))
    image.SetSpacing((0.9, 0.9, 2.5))
    sitk.WriteImage(image, str(folder / "answer.nrrd"), useCompression=False)
    return time.perf_counter() - started
