"""embconform bench: what it prints, writes, refuses."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_support import cli, folder, one_line  # noqa: F401
from performance_support import EAGER, cell, target

from embconform.backends.targets import resolve
from embconform.performance.floors import Bandwidth
from embconform.performance.growth import Growth
from embconform.performance.measure import Cell, Result, Status, measure
from embconform.performance.passes import PASSES
from embconform.performance.render import html, plot, terminal, words
from embconform.performance.render import json as as_json
from embconform.performance.run import BenchReport, Request, run
from embconform.performance.statistics import Estimate
from embconform.performance.timers import Noise
from embconform.performance.workloads import find

SMALL = ("--workload", "movielens-items-*", "--passes", "forward", "--no-growth", "--seconds", "1")
GOOD = "from torch.nn.functional import embedding\n\n\ndef embed(input, weight):\n"


@pytest.fixture
def report() -> BenchReport:
    """A true run of small cells."""
    request = Request((cell().workload,), ("forward", "backward"), against="eager", seconds=1.0)
    targets = [target(EAGER), target(EAGER, "marked", **{"lookup.rows": frozenset()})]
    return run(targets, Request(**{**vars(request), "growth": True, "quick": True}))


DIES = """
import os, torch

def embed(input, weight, *args, **options):
    if not input.is_floating_point() and input.numel() and weight.dim() == 2:
        if int(input.min()) < 0 or int(input.max()) >= len(weight):
            os.abort()
    return torch.nn.functional.embedding(input, weight, *args, **options)
"""


def test_a_target_beside_eager(cli: Any, folder: Path) -> None:  # noqa: F811
    (folder / "mine.py").write_text(GOOD + "    return embedding(input, weight).clone()\n")
    code, out, err = cli("bench", "mine.py:embed", *SMALL, "--json", "found.json")
    assert code == 0, out + err
    assert "mine.py:embed against eager" in out
    assert "movielens-items-batch-zipf-float32 forward warm" in out
    assert "GB/s" in out
    found = json.loads((folder / "found.json").read_text())
    eager, mine = found["results"]
    assert [r["target"] for r in (eager, mine)] == ["eager", "mine.py:embed"]
    assert eager["ratio"]["value"] == 1
    assert mine["ratio"]["low"] <= mine["ratio"]["value"] <= mine["ratio"]["high"]
    assert mine["share_of_ceiling"] > 0
    assert mine["memory"]["allocated_bytes"] == 2 * eager["memory"]["allocated_bytes"]
    assert len(mine["samples"]) == len(eager["samples"]) > 6


def test_a_wrong_target_is_marked_and_not_ranked(cli: Any, folder: Path) -> None:  # noqa: F811
    (folder / "mine.py").write_text(GOOD + "    return embedding(input, weight) + 0.5\n")
    code, out, err = cli("bench", "mine.py:embed", *SMALL, "--json", "-")
    assert code == 1
    mine = json.loads(out)["results"][1]
    assert mine["status"] == "wrong"
    assert "in a timed call" in mine["detail"]
    assert "not ranked" in err


def test_a_nonconformant_target_is_marked(cli: Any, folder: Path) -> None:  # noqa: F811
    body = "    out = embedding(input, weight)\n    return out if input.ndim == 1 else out + 1\n"
    (folder / "mine.py").write_text(GOOD + body)
    code, out, _ = cli("bench", "mine.py:embed", *SMALL)
    assert code == 1
    assert "nonconformant: breaks lookup." in out
    assert "not ranked" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["good.py:embed", "--workload", "bert-batch"], "matches no workload, did you mean 'bert"),
        (["good.py:embed", "--passes", "forwards"], "no pass 'forwards'; there are forward, back"),
        (["good.py:embed", "--plot", "a.gif"], "must end in .png or .svg"),
        (["good.py:embed", "--plot", "-"], "only --json may go to stdout"),
        (["good.py:embed", "--html", "no/a.html"], "there is no folder"),
        (["good.py:embed", "--html", "a", "--json", "a"], "--json and --html are the same file"),
        (["nothing"], "no backend is called 'nothing'"),
        (["good.py:embed", "--against", "eagre"], "no backend is called 'eagre'"),
        (["good.py:embed", "--seconds", "0"], "0 is not in the range"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_gets_one_line(
    cli: Any,  # noqa: F811
    folder: Path,  # noqa: F811
    arguments: list[str],
    said: str,
) -> None:
    one_line(cli("bench", *arguments), said)
    assert sorted(path.name for path in folder.iterdir()) == ["good.py"]


def test_cuda_where_there_is_none(cli: Any, folder: Path) -> None:  # noqa: F811
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device; the refusal is for those that have none")
    one_line(cli("bench", "eager", "--device", "cuda"), "it needs a CUDA device")


def test_ratios_are_to_eager_pytorch_by_its_name_on_the_device() -> None:
    from embconform.commands.bench import _eager

    cpu, both = EAGER, EAGER.capabilities.devices
    assert {"cpu", "cuda"} <= set(both)
    alone = replace(cpu, capabilities=replace(cpu.capabilities, devices=("cuda",)))
    assert _eager({"mine": cpu}, None) == "eager"
    assert _eager({"mine": cpu}, "cuda") == "cuda"
    assert _eager({"mine": cpu, "other": alone}, None) == "cuda"


def test_on_cuda_a_target_is_judged_in_processes_of_its_own(
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An index out of range ends the context, as it ends the process here."""
    isolated = importlib.import_module("embconform.conformance.isolation.isolated")
    real, devices = isolated.Isolated, []

    def on_this_machine(name: str, device: str) -> Any:
        devices.append(device)
        return real(name, "cpu")

    monkeypatch.setattr(isolated, "Isolated", on_this_machine)
    (folder / "dies.py").write_text(DIES)
    request = Request((cell().workload,), ("forward",), device="cuda", seconds=15, quick=True)
    judged = importlib.import_module("embconform.commands.bench")._judged
    broken, said = judged("dies.py:embed", resolve("dies.py:embed"), request)
    assert devices == ["cuda"]
    assert broken.keys() == {"state.torch-as-it-was"}  # refused calls are tried on the CPU only
    assert "was judged by" in said


def test_the_list_of_workloads(cli: Any) -> None:  # noqa: F811
    code, out, _ = cli("bench", "--list")
    assert code == 0
    assert "* bert-batch-zipf-float32 " in out
    assert "vocab_size 30522" in out
    assert len(out.splitlines()) == len(find("*")) + 2


def test_plot_without_matplotlib(cli: Any, folder: Path, monkeypatch: Any) -> None:  # noqa: F811
    monkeypatch.setattr(plot, "why_not", lambda: "it needs Matplotlib: pip install 'x'")
    one_line(cli("bench", "eager", "--plot", "a.png"), "it needs Matplotlib")


def test_importing_the_command_imports_neither_torch_nor_matplotlib() -> None:
    import subprocess
    import sys

    code = (
        "import sys, embconform.commands.bench\n"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'matplotlib', 'asv'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_json_has_everything(report: BenchReport) -> None:
    found = json.loads(as_json.render(report))
    assert found["schema"] == 1
    assert found["seed"] == 0
    assert found["environment"]["torch"]
    assert found["environment"]["affinity"]
    assert len(found["results"]) + 2 * sum("batch" in name for name in found["left_out"]) == 4
    for result in found["results"]:
        assert result["checked"] >= 2
        assert result["time"]["low"] <= result["time"]["value"] <= result["time"]["high"]
        assert result["moved"]["read"] > 0
        assert result["noise"]["load"] >= 0
    marked = [r for r in found["results"] if r["target"] == "marked"]
    assert {r["status"] for r in marked} == {"nonconformant"}
    assert all(r["ranked"] for r in found["results"] if r["target"] == "eager")


def test_pictures_and_page(report: BenchReport) -> None:
    assert plot.render(report, "png").startswith(b"\x89PNG")
    drawn = plot.render(report, "svg")
    assert b"<svg" in drawn
    assert plot.render(report, "svg") == drawn
    page = html.render(report)
    assert page.count("<svg") == 1
    assert "nonconformant: breaks lookup.rows" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace(
        "http://purl", ""
    ).replace("http://creativecommons", "")


def test_a_page_without_matplotlib_says_so(report: BenchReport, monkeypatch: Any) -> None:
    monkeypatch.setattr(plot, "why_not", lambda: "it needs Matplotlib")
    page = html.render(report)
    assert "No picture: it needs Matplotlib." in page


def test_a_page_quotes_names() -> None:
    (result,) = measure(Cell(cell().workload, PASSES["forward"]), [target(EAGER, "<b>")],
                        seconds=0.01, memory=False)  # fmt: skip
    made = BenchReport(Request((), against="<b>"), ("<b>",), (result,), (), {1: 1.0},
                       {"cpu": "c", "affinity": "0", "torch": "2"})  # fmt: skip
    assert "<b>" not in html.render(made)
    assert "&lt;b&gt;" in html.render(made)


def test_what_there_is_no_time_for_is_listed() -> None:
    request = Request(
        (cell().workload, cell(rows=300).workload), ("forward", "backward"), seconds=0.001
    )
    made = run([target(EAGER)], request)
    assert len(made.results) == 1
    assert len(made.left_out) == 3 + 4
    assert any("left out for lack of time" in note for note in made.notes)


def test_noise_is_said_in_the_report(capsys: Any) -> None:
    from dataclasses import replace

    from rich.console import Console

    (result,) = measure(cell(), [target(EAGER)], seconds=0.01, memory=False)
    noisy = replace(result, noise=Noise(0.5, 0, 0, 0))
    made = BenchReport(Request((), against="eager"), ("eager",), (noisy,), (), {1: 1.0},
                       {"cpu": "c", "affinity": "0", "torch": "2"})  # fmt: skip
    terminal.render(made, Console())
    assert "noisy: samples spread by 50%" in capsys.readouterr().out


def test_bandwidth_is_measured_again_for_each_cell() -> None:
    bandwidth = Bandwidth("cpu", seconds=0.001)
    bandwidth.best = dict.fromkeys(bandwidth.best, 0.0)
    measure(cell(), [target(EAGER)], bandwidth=bandwidth, seconds=0.01, memory=False)
    assert sum(rate > 0 for rate in bandwidth.best.values()) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.50 s"),
        (0.0123, "12.3 ms"),
        (4.5e-6, "4.50 µs"),
        (7e-10, "0.700 ns"),
        (123.4, "123 s"),
    ],
)
def test_times_in_words(value: float, text: str) -> None:
    assert words.seconds(value) == text


def test_other_words() -> None:
    assert words.ratio(Estimate(1.234, 1.1, 1.4)) == "1.23 [1.10, 1.40]"
    assert "too few samples" in words.ratio(Estimate(1.234))
    assert words.ratio(None) == ""
    assert words.share(0.8123) == "81%"
    assert words.share(0.0123) == "1.2%"
    assert words.share(float("nan")) == ""
    assert words.bytes_(3 * 2**20) == "3.00 MiB"
    assert words.bytes_(12) == "12 B"


def test_growth_without_points_has_no_line() -> None:
    empty = Growth("t", "forward", "N", (), (), Estimate(float("nan")), False)
    made = BenchReport(Request(()), ("t",), (), (empty,), {1: 1.0},
                       {"cpu": "c", "affinity": "0", "torch": "2"})  # fmt: skip
    from embconform.performance.render.rows import growth_rows

    assert growth_rows(made) == []


def test_a_result_has_its_share() -> None:
    made = Result("t", cell(), Status.OK, seconds=Estimate(2.0), floor_seconds=1.0)
    assert made.share_of_ceiling == 0.5
