"""check_backend and parametrize_with_clauses, in a user's own tests."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from embconform import (  # noqa: E402
    Backend,
    Capabilities,
    NonconformantError,
    check_backend,
    parametrize_with_clauses,
)
from embconform.backends.backend import TargetError  # noqa: E402
from embconform.conformance import api  # noqa: E402
from embconform.mutants.registry import all_planted  # noqa: E402
from embconform.reference.clause import Level, registry  # noqa: E402
from embconform.right import by_gather  # noqa: E402

torch.set_num_threads(1)

KNOWN = '[[deviation]]\nclause = "{}"\nreason = "we know"\nlink = "a link"\n'


def bare(input: Any, weight: Any) -> Any:  # noqa: A002
    return torch.nn.functional.embedding(input, weight)


def padded(input: Any, weight: Any, padding_idx: int | None = None) -> Any:  # noqa: A002
    return by_gather(input, weight, padding_idx)


def off(input: Any, weight: Any) -> Any:  # noqa: A002
    return weight[input] + 1


def one_line(error: pytest.ExceptionInfo[TargetError], said: str) -> None:
    assert said in str(error.value)
    assert "\n" not in str(error.value)


# check_backend


def test_a_right_function_has_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = check_backend(padded, select="padding.*")
    assert report.target == f"{__name__}:padded"
    assert report.verdict == "conformant"
    assert {result.clause.group for result in report.clauses} == {"padding"}
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_function_raises_with_the_clause_and_the_report() -> None:
    bug = next(bug for bug in all_planted() if bug.clause == "padding.gradient-is-zero")
    with pytest.raises(NonconformantError) as caught:
        check_backend(bug.target, select=bug.clause)
    message = str(caught.value)
    assert message.startswith(f"{caught.value.report.target} is not conformant\n\n{bug.clause} (")
    for part in (registry()[bug.clause].sentence[:60], "  got ", "  exact ", "print("):
        assert part in message
    assert not caught.value.report.conformant
    assert [result.clause.id for result in caught.value.report.clauses] == [bug.clause]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.report) == (message, caught.value.report)


def test_an_error_of_the_user_is_an_assertion() -> None:
    assert issubclass(NonconformantError, AssertionError)


def test_should_clauses_count_under_strict_only() -> None:
    names = "gradient.float32-accumulation,lookup.rows"  # shrinking the first makes warnings
    report = check_backend(bare, select=names)
    broken = [result for result in report.clauses if result.failed]
    assert [result.clause.level for result in broken] == [Level.SHOULD]
    with pytest.raises(NonconformantError, match="float32-accumulation") as caught:
        check_backend(bare, select=names, strict=True)
    assert "lookup.rows" not in str(caught.value)


def test_a_declared_deviation_does_not_raise(tmp_path: Path) -> None:
    known = tmp_path / "known.toml"
    known.write_text(KNOWN.format("lookup.rows"))
    report = check_backend(off, select="lookup.rows", deviations=known)
    assert report.conformant
    assert [result.status for result in report.clauses] == ["deviation"]


def test_a_backend_says_what_a_function_cannot(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.toml"
    theirs.write_text(KNOWN.format("lookup.rows"))
    backend = Backend(
        "mine",
        functional=off,
        capabilities=Capabilities(options=frozenset(), dtypes=("float32",)),
        deviations=theirs,
    )
    report = check_backend(backend, select="lookup.rows,lookup.half-precision,sparse.layout")
    assert report.target == "mine"
    statuses = {result.clause.id: result.status.value for result in report.clauses}
    assert statuses == {
        "lookup.rows": "deviation",
        "lookup.half-precision": "unsupported",
        "sparse.layout": "unsupported",
    }


# bad arguments


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("no_such_package:f", {}, "no module named 'no_such_package'"),
        ("eagre", {}, "did you mean 'eager'?"),
        (3, {}, "of type int, which can't be called"),
        (lambda weight, ids: weight[ids], {}, "swap the two"),
        (torch.nn.Embedding(2, 3), {}, "name the class"),
        (Backend("b", functional=bare, profiles=()), {}, "profiles must be some of"),
        (bare, {"profile": "Torch"}, "serves the torch and textbook profile, not Torch"),
        ("textbook", {"profile": "torch"}, "serves the textbook profile, not torch"),
        (bare, {"budget": "fast"}, "no budget 'fast'; there are quick, default, thorough"),
        (bare, {"seed": -1}, "the seed must be a whole number"),
        (bare, {"seed": "0"}, "the seed must be a whole number"),
        (bare, {"select": "lookup"}, "'lookup' matches no clause of the torch profile"),
        (bare, {"select": ""}, "'' matches no clause"),
        (bare, {"device": "tpu"}, "runs on cpu, cuda, not on tpu"),
        (bare, {"deviations": "no/such.toml"}, "can't read deviations no/such.toml"),
    ],
)
def test_bad_arguments(target: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(TargetError) as caught:
        check_backend(target, **options)
    one_line(caught, said)
    with pytest.raises(TargetError) as caught:
        parametrize_with_clauses([target], **options)
    one_line(caught, said)


def test_no_cuda_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TargetError) as caught:
        check_backend(bare, device="cuda")
    one_line(caught, "finds no CUDA device here")


@pytest.mark.parametrize("targets", ["eager", bare, torch.nn.Embedding, []])
def test_targets_come_in_a_list(targets: Any) -> None:
    with pytest.raises(TargetError) as caught:
        parametrize_with_clauses(targets)
    one_line(caught, "target")


def test_a_target_that_leaves_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: Any, **__: Any) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(api, "run", leave)
    with pytest.raises(TargetError) as caught:
        check_backend(bare)
    one_line(caught, "bare left the process: exit(3)")


# parametrize_with_clauses


def test_two_targets_in_a_users_file(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pytester.makepyfile(
        """
        from torch.nn.functional import embedding
        from embconform import parametrize_with_clauses

        def right(input, weight):
            return embedding(input, weight)

        def off(input, weight):
            return weight[input] + 1

        @parametrize_with_clauses(
            [right, off], select="lookup.rows,lookup.empty,sparse.layout", deviations="known.toml"
        )
        def test_clause(check):
            check()
        """
    )
    (pytester.path / "known.toml").write_text(KNOWN.format("lookup.empty"))
    result = pytester.runpytest_subprocess("-v", "-rs")
    result.assert_outcomes(passed=1, failed=1, skipped=2, xpassed=2)
    home = "test_two_targets_in_a_users_file"
    result.stdout.fnmatch_lines_random(
        [
            f"{home}.py::test_clause[[]{home}:right-lookup.rows[]] PASSED*",
            f"{home}.py::test_clause[[]{home}:off-lookup.rows[]] FAILED*",
            f"{home}.py::test_clause[[]{home}:off-lookup.empty[]] XPASS*",
            "lookup.rows (MUST): fail",
            f"SKIPPED * unsupported: {home}:off has no sparse",
        ]
    )
    result.stdout.no_fnmatch_line("Traceback*")
    result.stdout.no_fnmatch_line("*api.py:[0-9]*: *Fail*")


def test_checks_run_the_target_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = api.run

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(api, "run", counted)
    mark = parametrize_with_clauses([bare], select="lookup.rows,lookup.empty")
    assert calls == []
    checks = [parameter.values[0] for parameter in mark.args[1]]
    assert repr(checks[0]) == "<check of lookup.rows>"
    for check in checks:
        check()
    assert len(calls) == 1


# import embconform


def test_importing_takes_no_torch_and_names_come_when_they_are_used() -> None:
    code = """
import sys
import embconform
heavy = {"torch", "numpy", "hypothesis", "scipy", "pytest"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert set(embconform.__all__) <= set(dir(embconform))
assert "torch" not in sys.modules
assert embconform.Backend.__module__ == "embconform.backends.backend"
assert embconform.Capabilities().gradient
assert "torch" not in sys.modules
assert embconform.check_backend.__module__ == "embconform.conformance.api"
assert issubclass(embconform.NonconformantError, AssertionError)
assert callable(embconform.parametrize_with_clauses)
assert "pytest" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")


def test_an_unknown_name() -> None:
    import embconform

    with pytest.raises(AttributeError, match="module 'embconform' has no attribute 'nope'"):
        _ = embconform.nope
