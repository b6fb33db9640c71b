import pytest
import torch

from lib.engine.runtime import Runtime, available_devices, resolve_device
from lib.errors import DeviceError

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "CPU", "cpu:0", 3])
def test_a_device_that_does_not_exist_is_refused_with_those_that_do(name):
    with pytest.raises(DeviceError, match=r"Unknown device .*available: .*cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", [None, "", "auto"])
def test_without_a_name_the_best_device_is_taken(name):
    assert resolve_device(name) == torch.device(available_devices()[0])


def test_autocast_ends_with_the_step():
    runtime = Runtime(CPU, "bf16")
    with runtime.step():
        assert torch.is_autocast_enabled("cpu")
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(DeviceError, match="fp16 does not run on a CPU"):
        Runtime(CPU, "fp16")


def test_fp32_enters_no_autocast():
    with Runtime(CPU, "fp32").step():
        assert not torch.is_autocast_enabled("cpu")
