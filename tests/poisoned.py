"""Targets that lose their device at an index out of range, as a device-side assert on CUDA does.

The device is feigned on the CPU: a bad index is not noticed by the call, but by the next wait, and
every call and wait after that raises, as long as the process lives.
"""

import time

import torch
from torch.nn.functional import embedding

from embconform.backends.backend import Backend, Capabilities

MESSAGE = "CUDA error: device-side assert triggered"


class Device:
    """One a process."""

    lost = False

    def __call__(self):
        """Wait for it."""
        if self.lost:
            raise RuntimeError(MESSAGE)

    def look_up(self, indices, weight, **options):
        self()
        if weight.dim() == 2 and not indices.dtype.is_floating_point and indices.numel():
            outside = (indices < 0) | (indices >= len(weight))
            if bool(outside.any()):
                self.lost = True
                return weight.new_empty((*indices.shape, weight.shape[1]))
        return embedding(indices, weight, **options)


device = Device()


class ByMember(torch.autograd.Function):
    """Lets vmap call the function once a member."""

    @staticmethod
    def forward(indices, weight):
        return device.look_up(indices, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def vmap(info, in_dims, indices, weight):
        rows = [
            ByMember.apply(
                indices if in_dims[0] is None else indices.select(in_dims[0], k),
                weight if in_dims[1] is None else weight.select(in_dims[1], k),
            )
            for k in range(info.batch_size)
        ]
        return torch.stack(rows), 0


def by_member(indices, weight):
    return ByMember.apply(indices, weight)


def tampering(indices, weight):
    out = device.look_up(indices, weight)
    if device.lost:
        time.perf_counter = time.monotonic
    return out


POISONED = Backend("poisoned", functional=device.look_up, synchronize=device)
BARE = Capabilities(options=frozenset(), gradient=False, double_backward=False)
BY_MEMBER = Backend("by member", functional=by_member, synchronize=device, capabilities=BARE)
TAMPERING = Backend("tampering", functional=tampering, synchronize=device, capabilities=BARE)
