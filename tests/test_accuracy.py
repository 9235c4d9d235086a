"""Errors are those of the results, bounds those of the judges, and pictures show both."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cli_support
import numpy as np
import pytest
from cli_support import one_line
from matplotlib.text import Text
from rich.console import Console

from embconform.backends.targets import resolve
from embconform.conformance import accuracy
from embconform.conformance.accuracy import DTYPES, NORMS, Accuracy, Sample, joined, measure
from embconform.conformance.render import accuracy as pictures
from embconform.conformance.running.in_process import InProcess

cli, folder = cli_support.cli, cli_support.folder
Cli = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[1]
MUTANTS = "embconform.mutants"


def of(target: str, most: int = 1) -> Accuracy:
    return measure(InProcess(resolve(target)), target, most=most, seed=0)


def at(samples: tuple[Sample, ...], dtype: str, place: float) -> Sample:
    (found,) = [each for each in samples if (each.dtype, each.at) == (dtype, place)]
    return found


def test_bfloat16_stops_at_256() -> None:
    """Terms below 1 are lost on a sum of 256: the error is what is missing, in steps of 2."""
    found = of(f"{MUTANTS}.gradient:BfloatSaturates", 1024)
    sample = at(found.sums, "bfloat16", 1024.0)
    assert sample.exact == pytest.approx(0.75 * 1024, rel=0.03)
    assert sample.error == (sample.exact - 256) / 4  # an ulp of 512 to 1023
    assert sample.broken == ("gradient.float32-accumulation",)
    assert not sample.grave
    assert sample.bound_float32 < 1 < sample.error < sample.bound
    right = at(of("one-hot", 1024).sums, "bfloat16", 1024.0)
    assert right.error is not None
    assert right.error <= 0.5
    assert (right.broken, right.bound) == ((), sample.bound)


def test_a_planted_accumulator_is_seen() -> None:
    found = of(f"{MUTANTS}.gradient:SumsInFloat32", 64)
    for sample in found.sums:
        grave = sample.dtype == "float64"
        assert sample.grave is grave, sample
        assert sample.error is not None
        assert (sample.error > sample.bound) is grave


def test_a_planted_norm_is_seen() -> None:
    found = of(f"{MUTANTS}.max_norm_halves:NormInHalf")
    broken = {(each.dtype, each.at) for each in found.norms if each.broken}
    assert broken == {("float16", 2.0), ("bfloat16", 2.0)}
    for sample in found.norms:
        assert sample.error is not None
        assert (sample.error > sample.bound_float32) is bool(sample.broken)
        assert sample.exact == pytest.approx(1)


def test_what_a_target_lacks_is_said() -> None:
    found = of("one-hot")
    assert {each.error for each in found.norms} == {None}
    assert "does not declare max_norm" in found.norms[0].why
    assert len(found.sums) == len(DTYPES)
    assert len(found.norms) == len(DTYPES) * len(NORMS)


def test_a_target_that_raises_has_no_result(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(input, weight):\n    raise ValueError('no such day')\n")
    found = of(f"{tmp_path}/bad.py:f")
    assert {each.error for each in found.sums} == {None}
    assert "no such day" in found.sums[0].why


def made() -> Accuracy:
    """Make samples as measuring would, with a wrong one."""
    parts = []
    for target in ("right", "$x$ <wrong> _"):
        sums = [
            Sample(target, dtype, n, 0.4 * k, 5.0 * n, 0.7, (), 0.75 * n)
            for dtype in DTYPES
            for k, n in enumerate(accuracy.counts())
        ]
        norms = [Sample(target, dtype, p, 0.5, 100.0, 3.0) for dtype in DTYPES for p in NORMS]
        parts.append(Accuracy(tuple(sums), tuple(norms), 0))
    wrong = parts[1]
    bad = replace(wrong.sums[-1], error=1e9, broken=("gradient.sum",))
    none = replace(wrong.norms[0], error=None, why="does not declare max_norm")
    sums, norms = (*wrong.sums[:-1], bad), (none, *wrong.norms[1:])
    return joined([parts[0], replace(wrong, sums=sums, norms=norms)])


@pytest.mark.parametrize("draw", [pictures.draw_sums, pictures.draw_norms])
def test_pictures_say_what_they_show(draw: Callable[[Accuracy], pictures.Figure]) -> None:
    figure = draw(made())
    words = "\n".join(each.get_text() for each in figure.findobj(Text))
    for said in ("right", "allowed (MUST)", "allowed (SHOULD)", "error in ulp", r"\$x\$ <wrong> _"):
        assert said in words
    for dtype in DTYPES:
        assert dtype in words


def test_pictures_are_the_same_each_time() -> None:
    first, again = (pictures.render(pictures.draw_norms(made()), "svg") for _ in range(2))
    assert first == again
    assert "$x$ &lt;wrong&gt;" in first.decode()  # no formula, and no element


def test_lines_stand_where_the_numbers_do() -> None:
    found = made()
    axes = pictures.draw_sums(found).axes[DTYPES.index("bfloat16")]
    lines = {line.get_label(): line for line in axes.get_lines()}
    samples = [each for each in found.sums if each.dtype == "bfloat16"]
    for target in ("right", r"\$x\$ <wrong> _"):
        own = [
            each
            for each in samples
            if each.target.strip("_ ") == target.replace("\\", "").strip("_ ")
        ]
        np.testing.assert_array_equal(lines[target].get_ydata(), [each.error for each in own])
    bounds = next(line for label, line in lines.items() if "MUST" in str(label))
    np.testing.assert_array_equal(bounds.get_ydata(), [each.bound for each in samples[:15]])
    filled = [line for line in axes.get_lines() if list(line.get_ydata()) == [1e9]]
    assert len(filled) == 1  # the one sample that breaks a clause


def test_tables_give_the_largest_error() -> None:
    page = io.StringIO()
    pictures.write(made(), Console(file=page, width=100))
    text = page.getvalue()
    assert "1e+09  16384  8.192e+04     0.7  gradient.sum" in text
    assert "does not declare max_norm" not in text  # its other norms are known
    assert text.count("float64") == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sums", "a.pdf"), "--sums a.pdf: the name must end in .png or .svg"),
        (("--norms", "-"), "the name must end in .png or .svg"),
        (("--sums", "no/a.png"), "can't write --sums no/a.png"),
        (("--sums", "a.png", "--norms", "a.png"), "--sums and --norms are the same file, a.png"),
        (("--most", "0"), "0 is not in the range"),
        (("--sums", "a.svg", *"bcdefgh"), "8 targets can't be told apart in a picture"),
    ],
)
def test_bad_calls_give_one_line(
    folder: Path, cli: Cli, arguments: tuple[str, ...], said: str
) -> None:
    one_line(cli("accuracy", "good.py:embed", *arguments), said)
    assert {each.name for each in folder.iterdir()} == {"good.py"}


@pytest.mark.slow
def test_the_command_measures_in_processes_of_their_own(folder: Path, cli: Cli) -> None:
    call = ("accuracy", "good.py:embed", "--most", "4", "--sums", "a.svg", "--norms", "b.png")
    code, out, err = cli(*call, "--json", "a.json")
    assert (code, err) == (0, "")
    assert "Gradient sums" in out
    document = json.loads((folder / "a.json").read_text())
    assert len(document["sums"]) == 3 * len(DTYPES)
    assert {row["at"] for row in document["norms"]} == {1.0, 2.0, 3.0, "inf"}
    assert (folder / "a.svg").exists()
    one_line(cli("accuracy", "nope.py:f"), "nope.py")


def test_committed_pictures_are_small() -> None:
    named = {path.name for path in (ROOT / "docs/images").glob("accuracy-*.png")}
    page = (ROOT / "docs/accuracy.md").read_text(encoding="utf-8")
    assert named
    for name in named:
        assert f"(images/{name})" in page
        assert (ROOT / "docs/images" / name).stat().st_size < 200_000
