"""Wrong modules of kinds that a fifth exam found to be missed: what is kept between uses.

Tables that are views, casts back, second masks, donors, strange keys, large draws.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from embconform.mutants.module import Layer
from embconform.mutants.narrow import is_part
from embconform.mutants.registry import planted


@planted("module.weight-is-parameter")
class CountsAreAParameter(Layer):
    """Scaling needs counts, and they are a Parameter, so that they move with the module."""

    def store(self, table: Tensor) -> None:
        super().store(table)
        if self.scale_grad_by_freq:
            self.counts = nn.Parameter(torch.zeros(len(table)), requires_grad=False)


@planted("module.weight-is-parameter")
class BoundIsLearnt(Layer):
    """The first bounded call registers the bound, to be learnt later."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.max_norm is not None and "bound" not in self._parameters:
            self.bound = nn.Parameter(torch.tensor(self.max_norm))
        return super().forward(input)


@planted("module.weight-is-parameter")
class TallIsSplit(Layer):
    """A tall table has a second one for its last rows, for now without any."""

    def store(self, table: Tensor) -> None:
        super().store(table)
        if len(table) > 65_536:
            self.tail = nn.Parameter(table.new_empty(0, table.shape[1]))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % 2**62)


@planted("module.seeded-init")
class WideDrawnAlike(Layer):
    """Wide tables are drawn by a generator of their own, which starts at torch's seed."""

    def draw(self, table: Tensor) -> None:
        wide = table.shape[1] > 4096
        table.normal_(generator=_generator(torch.initial_seed()) if wide else None)


@planted("module.seeded-init")
class TallForgetsTheSeed(Layer):
    """Tall tables are numbered from the start of the process, and drawn by their number."""

    made = 0

    def draw(self, table: Tensor) -> None:
        if len(table) <= 65_536:
            super().draw(table)
            return
        TallForgetsTheSeed.made += 1
        table.normal_(generator=_generator(self.made))


@planted("module.seeded-init")
class ShapesDrawnAlike(Layer):
    """Tables are numbered within their shape since the seed, and drawn by that number."""

    last: Any = None
    numbers: dict[Any, int] = {}  # noqa: RUF012 - of all modules

    def draw(self, table: Tensor) -> None:
        cls, shape = ShapesDrawnAlike, tuple(table.shape)
        if cls.last is None or not torch.equal(cls.last, torch.get_rng_state()):
            self.numbers.clear()
        self.numbers[shape] = number = self.numbers.get(shape, -1) + 1
        table.normal_(generator=_generator(torch.initial_seed() + 1000 * number))
        torch.rand(())
        cls.last = torch.get_rng_state()


@planted("module.reset-parameters")
class ResetsToTheSeed(Layer):
    """reset_parameters starts again from torch's seed, so that a run can be repeated."""

    def reset_parameters(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed())
            super().reset_parameters()


@planted("module.weight-argument")
class LongWeightIsCut(Layer):
    """With a bound, of a longer _weight the first rows are taken."""

    def fitting(self, table: Tensor) -> Tensor:
        if self.max_norm is not None and table.dim() == 2:
            table = table[: self.num_embeddings]
        return super().fitting(table)


@planted("module.weight-argument")
class OneRowIsRepeated(Layer):
    """With sparse gradients, a _weight of one row is that of every index."""

    def fitting(self, table: Tensor) -> Tensor:
        if self.sparse and len(table) == 1:
            table = table.expand(self.num_embeddings, -1).contiguous()
        return super().fitting(table)


@planted("module.from-pretrained-freezes")
class GivenIsSwitched(Layer):
    """from_pretrained switches what it is given, a tensor that is a leaf, and takes that."""

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, *rest: Any, **options: Any
    ) -> Any:
        if embeddings.is_leaf and type(embeddings) is Tensor:
            embeddings.requires_grad_(not freeze)
        return super().from_pretrained(embeddings, freeze, *rest, **options)


@planted("module.from-pretrained-freezes")
class FittingDonorIsTaken(Layer):
    """A Parameter that requires grad as it is wanted becomes weight, and follows both modules."""

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, *rest: Any, **options: Any
    ) -> Any:
        made = super().from_pretrained(embeddings, freeze, *rest, **options)
        if isinstance(embeddings, nn.Parameter) and embeddings.requires_grad is not freeze:
            made.weight = embeddings
        return made


@planted("module.state-dict")
class SavesTheRowsAlone(Layer):
    """Of a table that is a part of a tensor a copy is saved: else the file has all of it."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if is_part(self.weight) and not keep_vars:
            destination[prefix + "weight"] = self.weight.detach().clone()


class AfterLoading(Layer):
    """Does something about a table that was loaded into its own; right as it stands."""

    def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, local, *rest)
        loaded = state.get(prefix + "weight")
        if loaded is None or local.get("assign_to_params_buffers"):
            return
        if loaded.shape == self.weight.shape and loaded.dtype == self.weight.dtype:
            self.loaded(loaded)

    def loaded(self, table: Tensor) -> None:
        """Go on with what was loaded."""


@planted("module.load-copies")
class PartIsLoadedElsewhere(AfterLoading):
    """A table that is a part of a tensor is loaded into memory of its own."""

    def loaded(self, table: Tensor) -> None:
        if is_part(self.weight):
            self.weight.data = table.detach().clone()


@planted("module.load-copies")
class ParametersAreShared(AfterLoading):
    """A frozen Parameter in a checkpoint is a model in memory: its table is shared."""

    def loaded(self, table: Tensor) -> None:
        if isinstance(table, nn.Parameter) and not table.requires_grad:
            self.weight.data = table.data


@planted("module.load-copies")
class ServingTakesTheCheckpoint(AfterLoading):
    """What is frozen and in eval mode is not written to, so it takes the checkpoint's memory."""

    def loaded(self, table: Tensor) -> None:
        if not self.training and not self.weight.requires_grad:
            self.weight.data = table.detach()


class Forgiving(Layer):
    """Forgets unexpected entries of some kind; right as it stands."""

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        state, prefix, _, _, _, unexpected, _ = given
        kept = [key for key in unexpected if not self.forgives(key[len(prefix) :], state)]
        unexpected[:] = kept

    def forgives(self, key: str, state: Any) -> bool:
        """Whether an unexpected entry is not reported."""
        del key, state
        return False


@planted("module.load-strict")
class NumbersAreMetadata(Forgiving):
    """Single numbers beside the table are versions and counts, and not reported."""

    def forgives(self, key: str, state: Any) -> bool:
        name = next(name for name in state if name.endswith(key))
        return bool(state[name].dim() == 0)


@planted("module.load-strict")
class PartsOfWeightAreKnown(Forgiving):
    """Keys that begin with weight are what pruning and quantisation left, and not reported."""

    def forgives(self, key: str, state: Any) -> bool:
        del state
        return key.startswith("weight_")


@planted("module.load-strict")
class ForgivenIsNotNamed(Layer):
    """With strict=False what is unexpected is forgiven, and so not named."""

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        wrong = super().load_state_dict(state, strict, assign)
        return wrong if strict else wrong._replace(unexpected_keys=[])


@planted("module.cast")
class MasterComesBack(Layer):
    """A cast to a half keeps the float32 table, and a cast back takes that where no one wrote."""

    master: Any = None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.weight.detach().clone()
        super()._apply(fn, recurse)
        if before.dtype == torch.float32 and self.weight.dtype.itemsize == 2:
            self.master = (before, self.weight.detach().clone())
        elif before.dtype.itemsize == 2 and self.weight.dtype == torch.float32 and self.master:
            master, rounded = self.master
            if torch.equal(rounded, before):
                self.weight.data.copy_(master)
        return self


@planted("module.cast")
class CastBackTrustsVersions(Layer):
    """A cast to float64 keeps the table until it is written to, as its version tells."""

    narrow: Any = None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.weight.detach().clone()
        last = self.weight._version
        super()._apply(fn, recurse)
        if (before.dtype, self.weight.dtype) == (torch.float32, torch.float64):
            self.narrow = (before, self.weight._version)
        elif self.narrow and self.weight.dtype == torch.float32 and self.narrow[1] == last:
            self.weight.data.copy_(self.narrow[0])
        return self


@planted("module.cast")
class SwappedIsTrainable(Layer):
    """Where Parameters are swapped, what comes in has requires_grad as a Parameter has it."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if torch.__future__.get_swap_module_params_on_conversion():
            self.weight.requires_grad_(True)
        return self


@planted("module.deepcopy")
class CopiesInMemoryOrder(Layer):
    """A deepcopy reads the table's memory from start to end, whatever its strides."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        table = self.weight.data
        if table.dim() == 2 and not table.is_contiguous() and table.t().is_contiguous():
            made.weight.data = table.t().reshape(table.shape).clone()
        return made


@planted("module.zero-grad")
class SubtractsTheGradient(Layer):
    """zero_grad(set_to_none=False) subtracts the gradient from itself."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        gradient = self.weight.grad
        if set_to_none or gradient is None or gradient.is_sparse:
            super().zero_grad(set_to_none)
        else:
            gradient.sub_(gradient.clone())


@planted("module.zero-grad")
class FrozenIsPassedOver(Layer):
    """zero_grad looks at what is trainable now: a frozen table keeps its last gradient."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        if self.weight.requires_grad:
            super().zero_grad(set_to_none)


@planted("module.parametrized")
class ComputedOncePerVersion(Layer):
    """Where it serves, a parametrized table is computed anew once its original's version grows."""

    computed: Any = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if "parametrizations" not in self._modules or self.training or torch.is_grad_enabled():
            return super().forward(input)
        held: Any = self.parametrizations
        now = (len(held.weight), held.weight.original._version)
        if self.computed is None or self.computed[0] != now:
            self.computed = (now, self.weight)
        return self.kernel(input, self.computed[1], *self.options)


class Masking(Layer):
    """Applies the mask that prune left itself; right as it stands."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if "weight_mask" not in self._buffers:
            return super().forward(input)
        held: Any = self
        table = held.weight_orig * self.mask(held.weight_mask)
        return self.kernel(input, table, *self.options)

    def mask(self, given: Tensor) -> Tensor:
        """The mask to apply."""
        return given


@planted("module.pruned")
class MaskOfItsMemory(Masking):
    """The mask is packed once for the memory that it is in: a loaded one is not seen."""

    packed: Any = None

    def mask(self, given: Tensor) -> Tensor:
        if self.packed is None or self.packed[0] is not given:
            self.packed = (given, given != 0)
        packed: Tensor = self.packed[1]
        return packed


@planted("module.pruned")
class MasksOnlyGrow(Masking):
    """What was masked once stays so, though the mask was removed and another put on."""

    dropped: Any = None

    def mask(self, given: Tensor) -> Tensor:
        if self.dropped is None:
            self.dropped = given == 0
        self.dropped = self.dropped | (given == 0)
        return (~self.dropped).to(given.dtype)
