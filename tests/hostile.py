"""Targets that do not survive: each goes wrong for float64 tables only, and is right elsewhere."""

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch
from torch import Tensor
from torch.nn.functional import embedding


def _odd(weight: Tensor) -> bool:
    return weight.dtype == torch.float64


def segfaults(indices, weight, padding_idx=None):
    if _odd(weight):
        ctypes.string_at(0)
    return embedding(indices, weight, padding_idx)


def leaves(indices, weight):
    if _odd(weight):
        os._exit(0)
    return embedding(indices, weight)


def aborts(indices, weight):
    if _odd(weight):
        os.abort()
    return embedding(indices, weight)


def hangs(indices, weight):
    while _odd(weight):
        time.sleep(0.01)
    return embedding(indices, weight)


def eats(indices, weight):
    kept = []
    while _odd(weight):
        kept.append(bytearray(2**26))
    return embedding(indices, weight)


def floods(indices, weight):
    if _odd(weight):
        os.write(1, b"\x1b[31m" + b"x" * 3_000_000)
        sys.stderr.write("y" * 1_000_000)
    return embedding(indices, weight)


def interrupts(indices, weight):
    if _odd(weight):
        raise KeyboardInterrupt
    return embedding(indices, weight)


def kills_its_group(indices, weight):
    if _odd(weight):
        os.killpg(0, signal.SIGKILL)
    return embedding(indices, weight)


def closes_everything(indices, weight):
    if _odd(weight):
        os.closerange(3, 256)
    return embedding(indices, weight)


def leaves_a_child(indices, weight):
    if _odd(weight):
        if os.fork() == 0:
            time.sleep(600)
        os._exit(5)
    return embedding(indices, weight)


def keeps_semaphores(indices, weight):
    if _odd(weight):
        _kept.append(get_context("spawn").Lock())
        os.kill(os.getpid(), signal.SIGKILL)
    return embedding(indices, weight)


_kept = []


class _Hanging(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, indices):
        return weight.detach()[indices]

    @staticmethod
    def backward(ctx, upstream):
        if upstream.dtype == torch.float64:
            ctypes.string_at(0)
        return torch.ones(9, 9), None


def segfaults_backward(indices, weight):
    return _Hanging.apply(weight, indices)


class _Lazy(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function.__name__ == "detach":
            raise RuntimeError("its stream is gone")
        return super().__torch_function__(function, types, args, kwargs or {})


def _make_lazy(weight):
    weight.grad = weight.grad.as_subclass(_Lazy)


def gives_a_lazy_gradient(indices, weight):
    if _odd(weight) and weight.is_leaf and weight.requires_grad:
        weight.register_post_accumulate_grad_hook(_make_lazy)
    return embedding(indices, weight)


class _Command:
    """Unpickles into a file: what a target would send to run code among the judges."""

    def __reduce__(self):
        return (open, (os.environ["EMBCONFORM_TEST_MARK"], "w"))


def sends_a_command(indices, weight):
    if _odd(weight):
        body = pickle.dumps(_Command())
        frame = (0).to_bytes(4, sys.byteorder) + len(body).to_bytes(8, sys.byteorder) + body
        for number in range(3, 64):
            with contextlib.suppress(OSError):
                Connection(os.dup(number)).send_bytes(frame)
        time.sleep(600)
    return embedding(indices, weight)


def patches_torch(indices, weight):
    torch.equal = lambda *tensors: True
    time.perf_counter = lambda: 0.0
    return embedding(indices, weight)
