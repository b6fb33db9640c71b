"""Distributed training with one process for each GPU, started here or by torchrun; averaged gradients."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from lib.child_process import end_with_server

# Time limit of collective calls: the first process reads images and validates while the others wait.
PATIENCE = timedelta(hours=6)


def processes(device: torch.device, multi_gpu: bool) -> int:
    """Number of processes to start for a training on a device; 1 under torchrun, which starts them."""
    if device.type != "cuda" or not multi_gpu or under_torchrun():
        return 1
    return max(1, torch.cuda.device_count())


def under_torchrun() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def launch(work: Callable[[Any], None], argument: Any, count: int) -> None:
    """Calls ``work(argument)``, which can be pickled, in so many processes; one is this process."""
    if under_torchrun():
        _join(rank(), int(os.environ["WORLD_SIZE"]), "env://")
        work(argument)
        dist.destroy_process_group()
    elif count == 1:
        work(argument)
    else:
        torch.multiprocessing.spawn(_process, (work, argument, count, _free_port()), nprocs=count)


def _process(rank: int, work: Callable[[Any], None], argument: Any, count: int, port: int) -> None:
    end_with_server()
    _join(rank, count, f"tcp://127.0.0.1:{port}")
    work(argument)
    dist.destroy_process_group()


def _join(rank: int, count: int, address: str) -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=count, timeout=PATIENCE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rank() -> int:
    """Rank of this process, also after the training; process 0 validates, writes and reports."""
    if dist.is_initialized():
        return dist.get_rank()
    return int(os.environ["RANK"]) if under_torchrun() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_device(device: torch.device) -> torch.device:
    """Device of this process in a training that starts at ``device``."""
    if world() > 1 and device.type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return device


def from_first(value: Any) -> Any:
    """The value of the first process in all processes; each waits for it."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replaces the gradients by their means over the processes; a missing gradient counts as zero."""
    if world() == 1:
        return
    own = list(parameters)
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
    flat = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(flat)
    flat /= world()
    for parameter, part in zip(own, flat.split([p.numel() for p in own]), strict=True):
        parameter.grad = part.view_as(parameter)
