"""Checks that are not a sequence of calls on one table: new modules, training on real text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from embconform.backends.backend import Backend, Described
from embconform.conformance.judging import Ruling
from embconform.reference.clause import Profile

Observe = Callable[..., Any]
Judge = Callable[[Any, Described, Profile, int], list[Ruling]]


@dataclass(frozen=True)
class Probe:
    """A check that calls the backend by itself and rules on several clauses.

    Attributes
    ----------
    name : str
    clauses : frozenset of str
        Clause ids that it can rule on.
    needs : frozenset of str
        Capabilities without which it can't run.
    observe : callable
        ``observe(backend, profile, seed, device)`` calls the target and returns what was seen:
        plain data that can be pickled and hold no expected value. An exception of the target is
        part of them. One that gives an Unfinished also takes how many trials to skip.
    judge : callable
        ``judge(observation, described, profile, seed)`` returns the rulings; it neither has the
        target nor calls torch.
    budgets : frozenset of str
        The budgets that it runs in.
    """

    name: str
    clauses: frozenset[str]
    needs: frozenset[str]
    observe: Observe
    judge: Judge
    budgets: frozenset[str] = frozenset({"quick", "default", "thorough"})

    def fits(self, described: Described, wanted: frozenset[str]) -> bool:
        """Tell whether the probe can run and anybody wants to know."""
        return self.needs <= described.able and bool(self.clauses & wanted)

    def run(self, backend: Backend, profile: Profile, seed: int, device: str) -> list[Ruling]:
        """Observe and judge in one process."""
        observation = self.observe(backend, profile, seed, device)
        return self.judge(observation, backend, profile, seed)


@cache
def probes() -> tuple[Probe, ...]:
    """List the probes."""
    from embconform.conformance.probes.after_other_uses import OTHER_USES_PROBE
    from embconform.conformance.probes.aftermath import AFTERMATH_PROBE
    from embconform.conformance.probes.default_device import DEFAULT_DEVICE_PROBE
    from embconform.conformance.probes.default_dtype import DEFAULT_DTYPE_PROBE
    from embconform.conformance.probes.every_row import EVERY_ROW_PROBES
    from embconform.conformance.probes.forked import FORKED_PROBE
    from embconform.conformance.probes.fresh_outputs import FRESH_OUTPUTS_PROBE
    from embconform.conformance.probes.graph_ends import GRAPH_END_PROBES
    from embconform.conformance.probes.graph_uses import GRAPH_PROBES
    from embconform.conformance.probes.held_gradients import HELD_GRADIENTS_PROBE
    from embconform.conformance.probes.index_views import VIEWS_PROBE
    from embconform.conformance.probes.kept_views import KEPT_VIEWS_PROBE
    from embconform.conformance.probes.large_calls import LARGE_CALLS_PROBE
    from embconform.conformance.probes.late_errors import LATE_ERRORS_PROBE
    from embconform.conformance.probes.many_axes import MANY_AXES_PROBE
    from embconform.conformance.probes.many_calls import MANY_CALLS_PROBE
    from embconform.conformance.probes.modules.registry import MODULE_PROBES
    from embconform.conformance.probes.near_permutations import NEAR_PERMUTATIONS_PROBE
    from embconform.conformance.probes.near_runs import NEAR_RUNS_PROBE
    from embconform.conformance.probes.number_kinds import NUMBER_KINDS_PROBE
    from embconform.conformance.probes.optimisers import OPTIMISER_PROBE
    from embconform.conformance.probes.options_apart import OPTIONS_PROBE
    from embconform.conformance.probes.other_tables import OTHER_TABLES_PROBE
    from embconform.conformance.probes.output_layout import OUTPUT_LAYOUT_PROBE
    from embconform.conformance.probes.passes import PASS_PROBES
    from embconform.conformance.probes.recorded_passes import RECORDED_PASSES_PROBE
    from embconform.conformance.probes.second_passes import SECOND_PASSES_PROBE
    from embconform.conformance.probes.sparse_entries import SPARSE_ENTRIES_PROBE
    from embconform.conformance.probes.streams import STREAM_PROBES
    from embconform.conformance.probes.table_views import TABLE_VIEWS_PROBE
    from embconform.conformance.probes.tables import TABLE_PROBES
    from embconform.conformance.probes.third_derivative import THIRD_DERIVATIVE_PROBE
    from embconform.conformance.probes.thread_count import THREAD_COUNT_PROBE
    from embconform.conformance.probes.threads import HANDED_OVER_PROBE, THREAD_PROBE
    from embconform.conformance.probes.torch_state import TORCH_STATE_PROBE
    from embconform.conformance.probes.training import TRAINING_PROBE
    from embconform.conformance.probes.transforms.at_once import AT_ONCE_PROBES
    from embconform.conformance.probes.transforms.eager import TRANSFORM_PROBES
    from embconform.conformance.probes.transforms.programs import PROGRAM_PROBES
    from embconform.conformance.probes.transforms.recorded import RECORDED_PROBES
    from embconform.conformance.probes.upstream_layouts import UPSTREAM_LAYOUTS_PROBE

    # PROGRAM_PROBES
    from embconform.conformance.probes.whole_numbers import WHOLE_NUMBERS_PROBE
    from embconform.conformance.probes.written_tables import WRITES_PROBE
    from embconform.conformance.probes.zero_norm import ZERO_NORM_PROBE

    return (
        THREAD_PROBE,
        HANDED_OVER_PROBE,
        FORKED_PROBE,
        *STREAM_PROBES,
        *TABLE_PROBES,
        *MODULE_PROBES,
        TRAINING_PROBE,
        OPTIMISER_PROBE,
        AFTERMATH_PROBE,
        OPTIONS_PROBE,
        OTHER_USES_PROBE,
        LATE_ERRORS_PROBE,
        VIEWS_PROBE,
        MANY_AXES_PROBE,
        FRESH_OUTPUTS_PROBE,
        KEPT_VIEWS_PROBE,
        OUTPUT_LAYOUT_PROBE,
        TABLE_VIEWS_PROBE,
        OTHER_TABLES_PROBE,
        TORCH_STATE_PROBE,
        WRITES_PROBE,
        WHOLE_NUMBERS_PROBE,
        ZERO_NORM_PROBE,
        NUMBER_KINDS_PROBE,
        *GRAPH_PROBES,
        *PASS_PROBES,
        RECORDED_PASSES_PROBE,
        SECOND_PASSES_PROBE,
        HELD_GRADIENTS_PROBE,
        UPSTREAM_LAYOUTS_PROBE,
        *GRAPH_END_PROBES,
        NEAR_PERMUTATIONS_PROBE,
        NEAR_RUNS_PROBE,
        SPARSE_ENTRIES_PROBE,
        THIRD_DERIVATIVE_PROBE,
        MANY_CALLS_PROBE,
        THREAD_COUNT_PROBE,
        LARGE_CALLS_PROBE,
        *EVERY_ROW_PROBES,
        DEFAULT_DTYPE_PROBE,
        DEFAULT_DEVICE_PROBE,
        *TRANSFORM_PROBES,
        *RECORDED_PROBES,
        *PROGRAM_PROBES,
        *AT_ONCE_PROBES,
    )


def probe_named(name: str) -> Probe:
    """Find a probe by its name."""
    return next(probe for probe in probes() if probe.name == name)
