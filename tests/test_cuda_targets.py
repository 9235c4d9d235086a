"""The program that measures the GPU's speed targets, tried out on a CPU with kernels of torch's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from plain_kernels import PlainKernels, embedding

from embconform.performance.cuda_targets import __main__ as program
from embconform.performance.cuda_targets import contenders
from embconform.performance.cuda_targets.ceilings import CEILINGS, PARTS, Ceiling
from embconform.performance.cuda_targets.contenders import KERNELS, PATHS, kernels_of
from embconform.performance.cuda_targets.counts import expected_distinct, operations, traffic
from embconform.performance.cuda_targets.digest import digest
from embconform.performance.cuda_targets.document import DRY, Document, read
from embconform.performance.cuda_targets.inputs import Draws, Inputs
from embconform.performance.cuda_targets.page import BEGIN, END, fill
from embconform.performance.cuda_targets.race import DeadDeviceError
from embconform.performance.cuda_targets.rows import CLIFF, DTYPES, WIDTHS, Row, find, plan
from embconform.performance.cuda_targets.run import LOOK_SAMPLES
from embconform.performance.cuda_targets.tables import compact
from embconform.performance.ids import zipf_exponent

SMALL = Row("forward", "x", 50, 8, 40, "float32", "zipf", 30)
SOME = "forward-512M-64-*,small-128-*,backward-50k-8k-768-*,equal-*,max_norm-64k-128-*,check-*-1-*"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    kernels_of.cache_clear()
    yield
    kernels_of.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, kernels: Any, family: str = "triton") -> None:
    """Let a set of kernels be found under the name of one of ours."""
    monkeypatch.setattr("plain_kernels.Chosen", kernels, raising=False)
    monkeypatch.setitem(KERNELS, family, "plain_kernels:Chosen")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(program.main, arguments)


def dry(folder: Path, *arguments: str) -> Document:
    """Run it and read what it wrote."""
    found = call("--device", "cpu", "--out", str(folder), *arguments)
    assert found.exit_code == 0, found.output
    document: Document = json.loads((folder / program.FILE).read_text())
    return document


def results(document: Document, row: str = "") -> dict[str, Document]:
    """Give the contenders of the first row whose name begins so."""
    entry = next(entry for name, entry in document["rows"].items() if name.startswith(row))
    return {result["name"]: result for result in entry["results"]}


def made(row: Row) -> Inputs:
    return Draws("cpu").make(row)


def test_the_plan_has_what_the_targets_are_about() -> None:
    rows = plan()
    assert len({row.name for row in rows}) == len(rows)
    forward = [row for row in rows if row.group == "forward"]
    assert {(r.width, r.dtype, r.ids) for r in forward} == {
        (width, dtype, ids) for width in WIDTHS for dtype in DTYPES for ids in ("uniform", "zipf")
    }
    assert all(row.output >= 0.99 * 64 * 2**20 for row in forward)
    assert all(row.rows * row.line >= 1e9 for row in forward if row.ids == "uniform")
    assert {r.count for r in rows if r.group == "small"} == {1, 128, 1_024, 4_096}
    backward = {(r.rows, r.count) for r in rows if r.group == "backward"}
    assert len(backward) == 6
    assert {r.count for r in rows if r.group == "equal"} == {713_000, *CLIFF}


@pytest.mark.parametrize("ids", ["uniform", "zipf", "equal"])
@pytest.mark.parametrize("group", ["forward", "backward", "max_norm"])
def test_bytes_are_those_that_a_plain_loop_touches(group: Any, ids: str) -> None:
    row = replace(SMALL, group=group, ids=ids, dtype="bfloat16")
    inputs = made(row)
    moved = traffic(row, inputs.distinct, inputs.scaled)
    read, written = [], []
    for indices in inputs.indices:
        touched, wrote = Counter[Any](), 0
        for k, index in enumerate(indices.tolist()):
            touched[("id", k)] = 8
            if group == "backward":
                touched[("upstream", k)] = row.width * 2
            else:
                touched[("row", index)] = row.width * 2
                wrote += row.width * 2
                if group == "max_norm" and touched[("seen", index)] == 0:
                    norm = float(inputs.weight[index].double().norm())
                    wrote += (norm > inputs.max_norm) * row.width * 2
                    touched[("seen", index)] = 1
        if group == "backward":
            wrote = row.rows * row.width * 2
        read.append(sum(size for (kind, _), size in touched.items() if kind != "seen"))
        written.append(wrote)
    assert moved.read == pytest.approx(np.mean(read), abs=1)
    assert moved.written == pytest.approx(np.mean(written), abs=1)


def test_operations_are_additions_norms_and_scalings() -> None:
    assert operations(SMALL, 20.0) == 0
    assert operations(replace(SMALL, group="backward"), 20.0) == 40 * 8
    assert operations(replace(SMALL, group="max_norm"), 20.0, 10.0) == (2 * 20 + 10) * 8


@pytest.mark.parametrize("ids", ["uniform", "zipf", "equal"])
def test_predicted_distinct_rows_are_those_of_draws(ids: str) -> None:
    row = replace(SMALL, rows=5_000, count=4_000, span=3_000, ids=ids)
    seen = made(row).distinct
    assert expected_distinct(row, zipf_exponent()) == pytest.approx(seen, rel=0.03)


def test_drawn_indices_stay_in_their_span_and_follow_their_law() -> None:
    row = replace(SMALL, rows=500, span=100, count=20_000)
    for ids in made(row).indices:
        counts = torch.bincount(ids, minlength=500)
        assert counts[100:].sum() == 0
        assert counts[0] / counts[9] == pytest.approx(10 ** zipf_exponent(), rel=0.25)


def test_a_dry_run_goes_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, PlainKernels)
    use(monkeypatch, PlainKernels, "cuda-cpp")
    monkeypatch.setattr(contenders, "function_of", lambda _: embedding)
    document = dry(tmp_path, "--contenders", "aten,triton,cuda-cpp", "--label", "first")
    assert list(document["rows"]) == [row.name for row in plan()]
    assert document["said"] == DRY
    found = [result for entry in document["rows"].values() for result in entry["results"]]
    assert {result["status"] for result in found} == {"ok"}
    assert {result["detail"] for result in found if result["ours"]} == {""}
    assert all(result["time"]["value"] > 0 for result in found)
    table = (tmp_path / program.TABLE).read_text()
    assert DRY in table
    assert len(table) < 12_000
    assert "no target is judged" in table


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # Inductor's own
def test_inductor_takes_part(tmp_path: Path) -> None:
    pattern = "forward-512M-64-float32-zipf,backward-50k-8k-768-float32-zipf"
    document = dry(tmp_path, "--contenders", "aten,inductor", "--rows", pattern)
    for row in ("forward", "backward"):
        found = results(document, row)
        assert {r["status"] for r in found.values()} == {"ok"}, found
        assert results(document, row)["inductor"]["ready_seconds"] > 0


def test_who_cannot_be_loaded_is_listed_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KERNELS, "triton", "embconform.no_such_module:Kernels")
    found = results(dry(tmp_path, "--contenders", "aten,triton", "--rows", "small-1-*"))
    assert found["triton"]["status"] == "absent"
    assert "no_such_module" in found["triton"]["detail"]
    assert found["aten"]["status"] == "ok"


class OffByOneRow(PlainKernels):
    def gather(self, weight: Any, indices: Any, *rest: Any, **options: Any) -> Any:
        return super().gather(weight, (indices + 1) % len(weight), *rest, **options)


class OneBit(PlainKernels):
    def gather(self, *arguments: Any, **options: Any) -> Any:
        output = super().gather(*arguments, **options)
        output.view(torch.int32 if output.dtype == torch.float32 else torch.int16)[-1, -1] ^= 1
        return output


class Unwritten(PlainKernels):
    def gather(self, *arguments: Any, **options: Any) -> Any:
        output = super().gather(*arguments, **options)
        output[-1] = torch.nan
        return output


class DropsTheLast(PlainKernels):
    def scatter(self, upstream: Any, indices: Any, *rest: Any, **options: Any) -> Any:
        return super().scatter(upstream[:-1], indices[:-1], *rest, **options)


class NarrowSums(PlainKernels):
    def scatter(self, upstream: Any, indices: Any, rows: int, **options: Any) -> Any:
        sums = upstream.new_zeros(rows, upstream.shape[1])
        for index, row in zip(indices.tolist(), upstream, strict=True):
            sums[index] += row
        return sums


class NeverScales(PlainKernels):
    def renorm(self, *arguments: Any) -> None:
        pass


class ScalesOutputsAlone(PlainKernels):
    def renorm(self, weight: Any, indices: Any, *rest: Any) -> None:
        self.saved = weight.clone()
        super().renorm(weight, indices, *rest)

    def gather(self, weight: Any, *rest: Any, **options: Any) -> Any:
        output = super().gather(weight, *rest, **options)
        weight.copy_(self.saved)
        return output


class WrongLater(PlainKernels):
    calls = 0

    def gather(self, *arguments: Any, **options: Any) -> Any:
        type(self).calls += 1
        output = super().gather(*arguments, **options)
        return output + 1 if self.calls > 2 else output


@pytest.mark.parametrize(
    ("kernels", "row"),
    [
        (OffByOneRow, "forward-512M-64-float32-uniform"),
        (OneBit, "forward-512M-64-bfloat16-zipf"),
        (Unwritten, "small-128-768-float32-uniform"),
        (WrongLater, "check-4096-768-float32-uniform"),
        (DropsTheLast, "backward-50k-8k-768-float32-zipf"),
        (NarrowSums, "equal-713k-384-bfloat16-equal"),
        (NeverScales, "max_norm-64k-128-float32-zipf"),
        (ScalesOutputsAlone, "max_norm-64k-128-bfloat16-zipf"),
    ],
)
def test_who_is_wrong_is_marked_and_not_ranked(
    kernels: type, row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, kernels)
    document = dry(tmp_path, "--contenders", "aten,triton", "--rows", row)
    found = results(document)["triton"]
    assert found["status"] == "wrong", found
    assert found["detail"]
    assert found["time"] is None
    assert found["verdicts"] == []
    assert results(document)["aten"]["status"] == "ok"
    assert "!" in compact(document).splitlines()[2]


class Raises(PlainKernels):
    def gather(self, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no such luck")


def test_who_raises_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Raises)
    found = results(dry(tmp_path, "--contenders", "aten,triton", "--rows", "small-1-*"))
    assert found["triton"]["status"] == "crash"
    assert "no such luck" in found["triton"]["detail"]


def test_max_norm_finds_the_same_table_at_each_call() -> None:
    inputs = made(replace(SMALL, group="max_norm"))
    before = inputs.weight.clone()
    for turn in (0, 0, 2, 1, 0):
        inputs.put_back(inputs.indices[turn])
        assert torch.equal(inputs.weight, before)
        inputs.weight[inputs.indices[turn]] *= 0.5
    assert not torch.equal(inputs.weight, before)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Document:
    """A small run that says it was made on a device."""
    document = dry(tmp_path_factory.mktemp("run"), "--contenders", "aten", "--rows", SOME)
    return document | {"said": "", "label": "v1", "environment": {"gpu": "H100"}}


def test_the_page_is_rendered_and_rendering_again_changes_nothing(
    measured: Document, tmp_path: Path
) -> None:
    page, file = tmp_path / "page.md", tmp_path / "found.json"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    file.write_text(json.dumps(measured))
    texts = []
    for _ in range(2):
        assert call("render", str(file), "--page", str(page)).exit_code == 0
        texts.append(page.read_text())
    assert texts[0] == texts[1]
    assert texts[0].startswith(f"before\n{BEGIN}\n\n| row |")
    assert texts[0].endswith(f"\n{END}\nafter\n")
    assert "old" not in texts[0]
    first = texts[0].partition("\n\n")[2].partition("\n\n")[0]
    lines = first.splitlines()
    assert len(lines) == 2 + len(plan())
    assert "| v1, H100, " in lines[0]
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    filled = [line for line in lines if "aten " in line]
    assert len(filled) == len(find(SOME))


def test_the_page_in_the_repository_is_what_its_digests_make() -> None:
    root = Path(__file__).parents[1]
    page = (root / program.PAGE).read_text()
    kept = sorted((root / program.DIGESTS).glob("*.json"))
    assert fill(page, [read(file) for file in kept]) == page


def test_a_digest_makes_the_same_page(measured: Document, tmp_path: Path) -> None:
    file, small = tmp_path / "found.json", tmp_path / "small.json"
    file.write_text(json.dumps(measured))
    assert call("digest", str(file), str(small), "--label", "v2").exit_code == 0
    empty = f"{BEGIN}{END}"
    assert fill(empty, [read(small)]) == fill(empty, [measured | {"label": "v2"}])
    assert digest(read(small), "") == read(small)
    assert small.stat().st_size < file.stat().st_size
    assert not any("samples_ns" in r for e in read(small)["rows"].values() for r in e["results"])
    found = call("--device", "cpu", "--onto", str(small))
    assert found.exit_code == 2
    assert "a digest has no samples" in found.output.splitlines()[-1]


def test_ceilings_are_timed_beside_copies(measured: Document) -> None:
    assert set(measured["ceilings_ns"]) == {"copy", "zeros", "numbers", "sum", "cat", "hot copy"}
    counts = {len(found) for by in measured["ceilings_ns"].values() for found in by.values()}
    groups = 6
    assert counts == {LOOK_SAMPLES * (groups + 1)}
    assert measured["copy_bytes_a_second"] > 0
    said = compact(measured)
    assert "zeros, GB/s written: " in said
    assert "sum, GB/s read: " in said


@pytest.mark.parametrize("ceiling", CEILINGS, ids=lambda ceiling: ceiling.name)
def test_ceilings_move_the_bytes_that_they_count(ceiling: Ceiling) -> None:
    size = 2**16
    found = ceiling.make(size, "cpu")()
    assert isinstance(found, torch.Tensor)
    if ceiling.name == "sum":
        assert found.shape == ()
        return
    assert found.numel() * found.element_size() == size
    zeros, distinct = int((found == 0).sum()), len(found.unique())
    few = {"zeros": 1, "numbers": size // 8, "hot copy": size // 4 // PARTS}
    expected = few.get(ceiling.name, size // 4)
    assert distinct == pytest.approx(expected, rel=0.01)
    assert (zeros > 2) == (ceiling.name == "zeros")


def test_a_dry_run_is_not_rendered(measured: Document) -> None:
    with pytest.raises(ValueError, match="dry run"):
        fill(f"{BEGIN}{END}", [measured | {"said": DRY}])


def test_a_run_goes_on_from_a_file(tmp_path: Path) -> None:
    first = dry(tmp_path, "--contenders", "aten", "--rows", "small-1-*")
    onto = str(tmp_path / program.FILE)
    both = dry(tmp_path, "--contenders", "aten", "--rows", "small-1-*,small-128-*", "--onto", onto)
    assert len(both["rows"]) == 4
    for name, entry in first["rows"].items():
        assert both["rows"][name]["results"][0]["samples_ns"] == entry["results"][0]["samples_ns"]


def test_what_time_does_not_suffice_for_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr(
        "embconform.performance.cuda_targets.run.perf_counter", lambda: float(next(clock))
    )
    document = dry(tmp_path, "--contenders", "aten", "--rows", "small-*", "--seconds", "100")
    assert len(document["rows"]) == 2
    assert len(document["left_out"]) == 6
    assert "6 rows left out" in (tmp_path / program.TABLE).read_text()


def test_a_dead_device_costs_one_contender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class ReplacedError(Exception):
        pass

    def execv(_: str, arguments: list[str]) -> None:
        started.append(arguments)
        raise ReplacedError

    def measure(*_: Any, **__: Any) -> None:
        raise DeadDeviceError("triton", "CUDA error: an illegal memory access")

    monkeypatch.setattr(program.os, "execv", execv)
    monkeypatch.setattr(program, "measure", measure)
    monkeypatch.setattr(program.Record, "rate", 1.0)
    found = call("--device", "cpu", "--out", str(tmp_path), "--rows", "small-*", "--seconds", "60")
    assert isinstance(found.exception, ReplacedError)
    ((_, *arguments),) = started
    options = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    assert options["--contenders"] == "aten,inductor,cuda-cpp"
    assert options["--rows"].count("small-") == 8
    assert options["--device"] == "cpu"
    assert "triton ended the CUDA context" in Path(options["--onto"]).read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "nothing-*"], "matches no row"),
        (["--contenders", "aten,cutlass"], "no contender 'cutlass'"),
        (["--seconds", "0"], "0"),
        (["render", "README.md"], "can't be read as JSON"),
        (["--device", "cpu", "--onto", "README.md"], "can't be read as JSON"),
    ],
)
def test_bad_input_gets_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    found = call(*arguments)
    assert found.exit_code == 2
    assert said in found.output.splitlines()[-1]


class Told(PlainKernels):
    """Kernels that can be told which path to take."""

    def __init__(self, *, path: str = "auto") -> None:
        self.path = path


def test_paths_are_timed_apart_where_kernels_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, ours = "backward-50k-8k-768-*", ["cuda-cpp", "cuda-cpp determ."]
    use(monkeypatch, PlainKernels, "cuda-cpp")
    document = dry(tmp_path, "--contenders", "aten,cuda-cpp", "--rows", rows)
    assert list(results(document)) == ["aten", *ours]
    use(monkeypatch, Told, "cuda-cpp")
    kernels_of.cache_clear()
    document = dry(tmp_path, "--contenders", "aten,cuda-cpp", "--rows", rows)
    found = results(document, "backward-50k-8k-768-float32")
    assert list(found) == ["aten", *ours, "cuda-cpp atomic", "cuda-cpp sorted"]
    assert {result["status"] for result in found.values()} == {"ok"}
    assert list(results(document, "backward-50k-8k-768-bfloat16")) == ["aten", *ours]
    assert " cpp atomic cpp sorted" in compact(document)


def test_paths_are_the_ones_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Told, "cuda-cpp")
    assert [kernels_of("cuda-cpp", path).path for path in PATHS] == list(PATHS)  # type: ignore[attr-defined]
    assert kernels_of("cuda-cpp").path == "auto"  # type: ignore[attr-defined]


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a CUDA device")
def test_no_device_is_said_in_one_line(tmp_path: Path) -> None:
    found = call("--out", str(tmp_path / "out"))
    assert found.exit_code == 2
    assert "finds no CUDA device here" in found.output.splitlines()[-1]
    assert not (tmp_path / "out").exists()
