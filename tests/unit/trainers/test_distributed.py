"""Several processes on the CPU, as several GPUs are used: gloo in the place of nccl."""

from pathlib import Path

import torch

from lib.trainers import distributed


def _average(folder: Path) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    parameters[0].grad = torch.full((2,), float(distributed.rank() + 1))
    distributed.average_gradients(parameters)
    said = distributed.from_first("first" if distributed.rank() == 0 else "other")
    torch.save([p.grad for p in parameters] + [said], folder / f"{distributed.rank()}.pt")


def test_gradients_are_averaged_and_the_first_decides(tmp_path):
    distributed.launch(_average, tmp_path, 2)
    for rank in range(2):
        given, missing, said = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert given.tolist() == [1.5, 1.5]
        assert missing.tolist() == [0.0, 0.0]
        assert said == "first"


def test_one_process_is_this_one():
    called = []
    distributed.launch(called.append, "x", 1)
    assert called == ["x"]
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.processes(torch.device("cpu"), multi_gpu=True) == 1
