"""The specification's sentences, one module a group."""

from embconform.reference.clauses import (
    errors,
    gradient,
    lookup,
    max_norm,
    module,
    padding,
    sparse,
    state,
    streams,
    training,
    transforms,
)

CLAUSES = (
    *lookup.CLAUSES,
    *padding.CLAUSES,
    *max_norm.CLAUSES,
    *gradient.CLAUSES,
    *sparse.CLAUSES,
    *errors.CLAUSES,
    *state.CLAUSES,
    *streams.CLAUSES,
    *module.CLAUSES,
    *training.CLAUSES,
    *transforms.CLAUSES,
)
