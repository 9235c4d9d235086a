"""Wrong modules: from_pretrained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.mutants.module import Layer
from embconform.mutants.registry import planted


class Pretrained(Layer):
    """A right module whose from_pretrained comes in parts."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        return cls.finished(super().from_pretrained(embeddings, freeze, **options))

    @classmethod
    def finished(cls, made: Any) -> Any:
        return made


@planted("module.from-pretrained")
class ZeroesPretrainedPadding(Pretrained):
    """from_pretrained zeroes row padding_idx, in the given tensor too."""

    @classmethod
    def finished(cls, made: Any) -> Any:
        if made.padding_idx is not None:
            with torch.no_grad():
                made.weight[made.padding_idx] = 0
        return made


@planted("module.from-pretrained")
class PretrainedInFloat32(Pretrained):
    """from_pretrained makes float32 of every table."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        return super().from_pretrained(embeddings.float(), freeze, **options)


@planted("module.from-pretrained")
class PretrainedDrawnAnew(Pretrained):
    """from_pretrained calls reset_parameters last, so the given rows are lost."""

    @classmethod
    def finished(cls, made: Any) -> Any:
        made.reset_parameters()
        return made


@planted("module.from-pretrained-shares")
class CopiesPretrained(Pretrained):
    """from_pretrained clones the given tensor."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        return super().from_pretrained(embeddings.clone(), freeze, **options)


@planted("module.from-pretrained-shares")
class CopiesWhenTrainable(Pretrained):
    """from_pretrained clones a table that it does not freeze."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        table = embeddings if freeze else embeddings.clone()
        return super().from_pretrained(table, freeze, **options)


@planted("module.from-pretrained-freezes")
class TrainableByDefault(Pretrained):
    """freeze is False by default."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = False, **options: Any) -> Any:
        return super().from_pretrained(embeddings, freeze, **options)


@planted("module.from-pretrained-freezes")
class NeverFreezes(Pretrained):
    """freeze is accepted and ignored."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        return super().from_pretrained(embeddings, False, **options)


@planted("module.from-pretrained-options")
class ForgetsNormType(Pretrained):
    """from_pretrained passes max_norm on and not norm_type."""

    @classmethod
    def finished(cls, made: Any) -> Any:
        made.norm_type = 2.0
        return made


@planted("module.from-pretrained-options")
class ForgetsPaddingOfPretrained(Pretrained):
    """from_pretrained drops padding_idx."""

    @classmethod
    def finished(cls, made: Any) -> Any:
        made.padding_idx = None
        return made


@planted("module.from-pretrained-options")
class ScaleIsSparse(Pretrained):
    """from_pretrained passes scale_grad_by_freq and sparse in the wrong order."""

    @classmethod
    def finished(cls, made: Any) -> Any:
        made.scale_grad_by_freq, made.sparse = made.sparse, made.scale_grad_by_freq
        return made


@planted("module.from-pretrained-rank")
class AnyRankPretrained(Pretrained):
    """from_pretrained folds all axes but the first into one."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        folded = embeddings if embeddings.dim() == 2 else embeddings.reshape(len(embeddings), -1)
        return super().from_pretrained(folded, freeze, **options)


@planted("module.from-pretrained-rank")
class LastAxesPretrained(Pretrained):
    """from_pretrained takes a stack of tables for its first one."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        first = embeddings[0] if embeddings.dim() == 3 else embeddings
        return super().from_pretrained(first, freeze, **options)
