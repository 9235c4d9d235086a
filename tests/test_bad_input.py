import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import cli_support  # noqa: E402
from cli_support import GOOD, MUST, one_line, process  # noqa: E402

from embconform.commands import main  # noqa: E402
from embconform.conformance.report import Status  # noqa: E402

cli, folder, runs = cli_support.cli, cli_support.folder, cli_support.runs


# bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("validate", "Missing argument 'TARGET...'"),
        ("validate eager --budget fast", "'fast' is not one of 'quick', 'default', 'thorough'"),
        ("validate eager --profile jax", "'jax' is not one of 'torch', 'textbook'"),
        ("validate eager --seed x", "'x' is not a valid integer"),
        ("validate eager --seed -1", "-1 is not in the range"),
        ("validate eager --max-examples 0", "0 is not in the range"),
        ("validate eager --device tpu", "'tpu' is not one of 'cpu', 'cuda'"),
        ("validate eager --sed 3", "No such option"),
        ("validate eager --json", "requires an argument"),
        ("valdate eager", "No such command 'valdate'"),
        ("--nothing", "No such option"),
        ("validate eager --select nothing.*", "matches no clause"),
        ("validate eager --select padding", "did you mean 'padding.*'?"),
        (f"validate eager --select {MUST[:-1]}", f"did you mean '{MUST}'?"),
        ("validate eager --select padding.output-is-zero", "some of the textbook profile"),
        ("validate eager --profile torch --select zzz", "matches no clause"),
        ("validate eager --profile textbook", "eager serves the torch profile, not textbook"),
        ("validate textbook --profile torch", "leave --profile out or name textbook"),
        ("validate egaer", "did you mean 'eager'?"),
        ("validate eager egaer", "did you mean 'eager'?"),
        ("validate absent.py:f", "no file absent.py"),
        ("validate math:pi", "can't be called"),
        ("validate good.py:embd", "did you mean 'embed'?"),
        ("validate eager --deviations absent.toml", "can't read deviations absent.toml"),
        ("validate eager --deviations good.py", "good.py is not TOML"),
        ("clauses padding.negatve", "did you mean 'padding.negative'"),
        ("clauses zzz.*", "no clause matches 'zzz.*'"),
        ("clauses padding.negative --profile textbook", "belongs to the torch profile alone"),
        ("clauses a b", "unexpected extra argument"),
    ],
)
def test_bad_input_isone_line(folder, runs, cli, arguments, said):
    result = cli(*arguments.split())
    one_line(result, said)
    assert runs.seen == []
    assert [path.name for path in folder.iterdir()] == ["good.py"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there(folder, runs, cli):
    one_line(cli("validate", "good.py:embed", "--device", "cuda"), "finds no CUDA device here")


def test_a_device_that_the_backend_does_not_serve(folder, runs, cli):
    (folder / "b.py").write_text(
        "from embconform.backends.backend import Backend, Capabilities\n"
        "b = Backend('b', functional=lambda i, w: w[i],\n"
        "            capabilities=Capabilities(devices=('cpu',)))\n"
    )
    one_line(cli("validate", "b.py:b", "--device", "cuda"), "b.py:b runs on cpu, not on cuda")


def test_an_import_that_raises(folder, runs, cli):
    (folder / "bad.py").write_text("print('noise')\nraise ValueError('no license')")
    result = cli("validate", "bad.py:embed", "--json", "x.json")
    one_line(result, "importing bad.py failed: ValueError: no license (bad.py:2)")
    assert not (folder / "x.json").exists()


def test_a_target_that_prints_floods(folder, runs, cli):
    flood = "import os, sys\nfor _ in range(300): os.write(1, b'flood ' * 1000)\n"
    (folder / "loud.py").write_text(flood + "print('more', file=sys.stderr)\n" + GOOD)
    runs.act = lambda: os.write(2, b"again\n" * 100_000) and None
    code, out, err = cli("validate", "loud.py:embed", "--json", "-", "--isolation", "none")
    assert code == 0
    document = json.loads(out)
    printed = 300 * 6000 + len("more\n") + 600_000
    (note,) = document["notes"]
    assert note.startswith(f"the target printed {printed:,} bytes, which are not shown")
    assert len(err) < 2000


def test_a_target_that_leaves_theprocess(folder, runs, cli):
    runs.act = lambda: sys.exit(0)
    result = cli("validate", "good.py:embed", "--isolation", "none")
    one_line(result, "good.py:embed left the process: exit(0)")


# faults, interruptions, pipes


def test_our_own_fault_is_exit_3(folder, runs, cli):
    def fail():
        os.write(1, b"last words\n")
        raise AssertionError("a bug of ours")

    runs.act = fail
    given = "validate", "good.py:embed", "--json", "x.json", "--isolation", "none", "--seed", "5"
    code, out, err = cli(*given)
    assert (code, out) == (3, "")
    assert "Traceback (most recent call last)" in err
    assert "AssertionError: a bug of ours" in err
    assert (
        "replay: embconform validate good.py:embed --profile torch --seed 5 --isolation none" in err
    )
    assert "printed meanwhile: last words" in err
    last = err.splitlines()[-1]
    assert last.startswith("embconform: this is a fault in embconform 0.1.0")
    assert last.endswith(
        "command: embconform validate good.py:embed --json x.json --isolation none --seed 5"
    )
    assert not (folder / "x.json").exists()


def test_ctrl_c(folder, runs, cli):
    def interrupt():
        raise KeyboardInterrupt

    runs.act = interrupt
    code, out, err = cli("validate", "good.py:embed", "--json", "x.json")
    assert (code, out) == (130, "")
    assert err.strip() == "embconform: interrupted; nothing was written"
    assert not (folder / "x.json").exists()


@pytest.mark.parametrize("command", ["clauses", "--help"])
def test_a_reader_that_goes_away(command):
    code = f"{sys.executable} -m embconform {command} | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stderr == ""
    assert result.stdout.strip() in {"0", "141"}


def test_the_verdict_survives_a_reader_that_goes_away(folder, runs, cli, monkeypatch):
    class Gone:
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError

        def isatty(self):
            return False

        def flush(self):
            pass

        def fileno(self):
            raise OSError

    runs.broken = {MUST: Status.FAIL}
    monkeypatch.setattr(sys, "stdout", Gone())
    assert main.run(["validate", "good.py:embed", "--json", "x.json"]) == 1
    assert json.loads((folder / "x.json").read_text())["verdict"] == "nonconformant"


def test_a_full_stdout_isone_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = subprocess.run(
            [sys.executable, "-m", "embconform", "clauses"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == "embconform: can't print the report: No space left on device\n"


def test_a_closed_stdout(folder):
    def call(*arguments):
        line = f"{sys.executable} -m embconform {' '.join(arguments)} >&-"
        return subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False
        )

    listed = call("clauses")
    assert (listed.returncode, listed.stderr) == (0, "")
    refused = call("validate", "good.py:embed", "--json", "-")
    assert refused.returncode == 2
    assert refused.stderr.startswith("embconform: can't write --json -: standard output is closed")


def test_an_ascii_terminal():
    result = process("clauses", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
