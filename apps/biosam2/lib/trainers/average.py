"""The mean of a network over its last steps: better than any one of them (Polyak and Juditsky 1992)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from lib.engine.network import Network
from lib.trainers.parameters import trained_parameters

# A step's share fades over about this many steps; sooner at the beginning, where old steps are worse.
STEPS = 100
_FIRST_STEPS = 10


class Average:
    """Exponential moving average of the trained parameters.

    Attributes:
        values: by name, on the device of the network.
    """

    def __init__(self, network: Network):
        self._network = network
        self.values = {name: value.detach().clone() for name, value in trained_parameters(network)}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the network after step ``step``, counted from 0."""
        keep = min(1 - 1 / STEPS, (1 + step) / (_FIRST_STEPS + step))
        for name, value in trained_parameters(self._network):
            self.values[name] = self.values[name].to(value.device)
            self.values[name].lerp_(value, 1 - keep)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The network with the average in it; afterwards it is as it was."""
        own = {name: value.detach().clone() for name, value in trained_parameters(self._network)}
        self._network.load_state_dict(self.values, strict=False)
        try:
            yield
        finally:
            self._network.load_state_dict(own, strict=False)
