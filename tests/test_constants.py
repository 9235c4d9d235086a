"""The whole numbers in a target's own code are found, and no other code's."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from embconform.backends.backend import Backend
from embconform.backends.compile import BACKEND as COMPILED
from embconform.backends.constants import constants
from embconform.backends.eager import BACKEND as EAGER
from embconform.backends.source import import_file
from embconform.backends.targets import resolve

NAMED = 1_013
Table = tuple[int, int, int]
SIZES: Table = (1_019, 1_021, 1_031)


def looks_up(input: Any, weight: Any) -> Any:  # noqa: A002
    if input.numel() > 1_009 or NAMED in weight.shape:
        return helper(input)
    return torch.nn.functional.embedding(input, weight)


def helper(input: Any) -> Any:  # noqa: A002
    return [input for size in SIZES if input.numel() > size << 0]


def not_called(input: Any) -> bool:  # noqa: A002
    return bool(input.numel() == 2_003)


class Scatter(torch.autograd.Function):
    """What a lookup's backward pass would do."""

    BLOCK = 1_033

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        return upstream[0][:1_039]


class Layer(torch.nn.Embedding):
    """A module of which one number lies in each of three places."""

    piece = 1_049

    def forward(self, input: Any) -> Any:  # noqa: A002
        if input.numel() > 1_051:
            return Scatter.apply(input)
        return super().forward(input)


class Kernel:
    """A kernel whose block is chosen when it is made."""

    def __init__(self, block: int) -> None:
        self.block = block

    def __call__(self, input: Any, weight: Any) -> Any:  # noqa: A002
        return weight[input[: self.block]]

    lookup = __call__


def closing_over(block: int) -> Callable[..., Any]:
    def inner(input: Any, weight: Any, size: int = 1_063) -> Any:  # noqa: A002
        return weight[input[: block + size]]

    return inner


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def outer(*arguments: Any) -> Any:
        return function(*arguments)

    return outer


def folded(input: Any) -> bool:  # noqa: A002
    return bool(input.numel() > 1 << 13 or input.numel() > 48 * 1_024)


def shifted(input: Any) -> Any:  # noqa: A002
    return (input >> 15) + (input << 9)


def out_of_bounds(input: Any) -> Any:  # noqa: A002
    return input[3:4], True, input == -(2**40), input == -777


SOURCE = """
__global__ void gather(const float* table) {
    constexpr int kBlock = 1087;  // not 1088
    __shared__ float tile[1 << 11];
    const int mask = 0x3ff;
    const float half = 1091.5f;
}
"""


def compiles_a_source() -> str:
    return SOURCE


class TestConstants:
    def test_of_a_function_and_what_it_calls(self) -> None:
        assert sorted(constants(looks_up)) == [1_009, NAMED, *SIZES]

    def test_of_a_module_its_functions_and_its_base_in_another_package(self) -> None:
        assert sorted(constants(Layer)) == [1_033, 1_039, 1_049, 1_051]

    @pytest.mark.parametrize("target", [Kernel(1_061), Kernel(1_061).lookup], ids=["made", "bound"])
    def test_of_an_object(self, target: Any) -> None:
        assert constants(target) == (1_061,)

    def test_of_closures_and_defaults(self) -> None:
        assert sorted(constants(closing_over(1_069))) == [1_063, 1_069]

    @pytest.mark.parametrize(
        "target",
        [wrapped(looks_up), functools.partial(looks_up), torch.compiler.disable(looks_up)],
        ids=["wraps", "partial", "disable"],
    )
    def test_of_what_is_wrapped(self, target: Any) -> None:
        assert NAMED in constants(target)

    def test_products_and_powers_are_worked_out(self) -> None:
        assert sorted(constants(folded)) == [1 << 13, 48 * 1_024]

    def test_a_shift_stands_for_a_power_of_two(self) -> None:
        assert {1 << 15, 1 << 9} <= set(constants(shifted))

    def test_small_huge_and_negative_ones_and_truths(self) -> None:
        assert constants(out_of_bounds) == (777,)

    def test_of_a_kernel_in_a_string(self) -> None:
        assert sorted(constants(compiles_a_source)) == [0x3FF, 1_087, 2_048]

    def test_nothing_of_torch(self) -> None:
        assert constants(torch.nn.functional.embedding, torch.nn.Embedding) == ()

    def test_none_counts_for_nothing(self) -> None:
        assert constants(None) == ()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "parts.py").write_text("LIMIT = 1_093\n", encoding="utf-8")
    (tmp_path / "gather.cu").write_text("const int block = 1097;", encoding="utf-8")
    (tmp_path / "other.cu").write_text("const int block = 1103;", encoding="utf-8")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


class TestFiles:
    def test_modules_beside_it_and_the_sources_that_it_names(self, folder: Path) -> None:
        own = folder / "kernel.py"
        own.write_text(
            "import parts\n\n\ndef look(input, weight):\n"
            "    assert input.numel() < parts.LIMIT\n    return load('gather.cu')\n",
            encoding="utf-8",
        )
        assert constants(import_file(own).look) == (1_093, 1_097)

    def test_a_package(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = folder / "kernels_of_a_test"
        (package / "csrc").mkdir(parents=True)
        (package / "__init__.py").write_text("", encoding="utf-8")
        (package / "csrc" / "sum.cuh").write_text("const int n = 1109;", encoding="utf-8")
        (package / "sizes.py").write_text("def size():\n    return 1_117\n", encoding="utf-8")
        (package / "look.py").write_text(
            "def look(input, weight):\n"
            "    from kernels_of_a_test.sizes import size\n"
            "    return weight[input][:size()], 'csrc/sum.cuh'\n",
            encoding="utf-8",
        )
        monkeypatch.syspath_prepend(str(folder))
        assert constants(resolve("kernels_of_a_test.look:look").functional) == (1_117, 1_109)

    def test_a_long_or_unreadable_source_is_left_out(self, folder: Path) -> None:
        own = folder / "kernel.py"
        own.write_text("def look(input, weight):\n    return 'big.cu', 1_123\n", encoding="utf-8")
        (folder / "big.cu").write_text("const int n = 1129;" + " " * 2**20, encoding="utf-8")
        assert constants(import_file(own).look) == (1_123,)


class TestBackends:
    def test_one_that_is_torch_has_none(self) -> None:
        assert EAGER.constants == ()

    def test_an_interpreted_one_is_spared(self) -> None:
        assert Backend("interpreted", looks_up).constants
        assert Backend("interpreted", looks_up, interpreter="an interpreter").constants == ()

    def test_they_go_with_the_description(self) -> None:
        assert Backend("mine", looks_up).describe().constants == constants(looks_up)

    def test_the_sources_of_cuda_kernels_are_read(self) -> None:
        from embconform.backends.cuda_cpp import BACKEND

        assert 256 in BACKEND.constants

    def test_a_compiled_one_has_them_too(self) -> None:
        assert COMPILED.compiled
        assert COMPILED.constants
