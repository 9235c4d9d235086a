"""asv runs from a fresh clone, sees a planted slowdown, and takes results from elsewhere."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("asv", reason="asv is in the extra 'bench'")

ROOT = Path(__file__).parents[1]
ASV = (sys.executable, "-m", "asv")
WHO = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
SLOWED = "functional=lambda *a, **k: torch.nn.functional.embedding(*a, **k).clone(),"


@pytest.fixture
def call(tmp_path: Path) -> Any:
    """Run a command in a fresh clone, with a home of its own; asv writes into it."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environment = os.environ | {
        "HOME": str(tmp_path),
        "EMBCONFORM_BENCHMARKS": "quick",
        "OMP_NUM_THREADS": "1",
        **{
            f"GIT_{who}_{what}": "a@b.c"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }

    def run(*command: str, code: int = 0) -> str:
        done = subprocess.run(
            command, cwd=clone, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=1_800, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    run(*ASV, "machine", "--yes")
    return run


@pytest.fixture
def gpu(tmp_path: Path) -> Path:
    """What embconform bench --json writes, as from a machine with a GPU."""
    result = {
        "target": "eager", "workload": "movielens-users-batch-uniform-float32",
        "pass": "forward", "device": "cuda", "cache": "warm", "status": "ok",
        "time": {"value": 1.25e-5}, "share_of_ceiling": 0.81,
        "memory": {"peak_bytes": 4096, "allocated_bytes": 2048.0},
        "compiled": {"first_call_seconds": 0.1, "recompilations": 0},
    }  # fmt: skip
    wrong = result | {"pass": "backward", "status": "wrong", "time": {"value": 1e-9}}
    environment = {
        "cpu": "a processor", "cores": "16", "system": "Linux 6.1 x86_64",
        "memory": "1 GiB, 1 free", "python": "3.11.7", "torch": "2.13.0",
        "gpu": "NVIDIA H100", "driver": "580.1", "cuda": "13",
    }  # fmt: skip
    file = tmp_path / "gpu.json"
    file.write_text(
        json.dumps({"schema": 1, "results": [result, wrong], "environment": environment})
    )
    return file


def just_discover(call: Any) -> None:
    """Let asv find the benchmarks in the Python at hand."""
    call(*ASV, "run", "--bench", "just-discover", "--python", "same")


def test_results_from_elsewhere_stand_on_the_site(call: Any, gpu: Path, tmp_path: Path) -> None:
    just_discover(call)
    said = call(sys.executable, "-m", "benchmarks.bring", str(gpu), "--machine", "gpu-box")
    assert "4 numbers" in said
    clone = tmp_path / "clone"
    machine = json.loads((clone / ".asv/results/gpu-box/machine.json").read_text())
    assert machine["gpu"] == "NVIDIA H100"
    assert machine["driver"] == "580.1"
    call(*ASV, "publish", "HEAD^!")
    index = json.loads((clone / ".asv/html/index.json").read_text())
    assert index["params"]["gpu"] == ["NVIDIA H100"]
    assert index["params"]["machine"] == ["gpu-box"]
    graphs = list((clone / ".asv/html/graphs").rglob("branch-*/**/speed.Speed.track_seconds.json"))
    (points,) = [json.loads(path.read_text()) for path in graphs]
    ((_, values),) = points
    # the wrong target's 1e-9 stands nowhere
    assert [value for value in values if value is not None] == [1.25e-5]


# the published site in a browser, with the libraries that it loads from elsewhere taken from npm

CHROMIUM = Path("/usr/bin/chromium")
NPM = {
    "jquery-3.3.1.min.js": ("jquery@3.3.1", "dist/jquery.min.js"),
    "jquery.flot.min.js": ("flot@0.8.3", "jquery.flot.js"),
    "jquery.flot.time.min.js": ("flot@0.8.3", "jquery.flot.time.js"),
    "jquery.flot.selection.min.js": ("flot@0.8.3", "jquery.flot.selection.js"),
    "jquery.flot.categories.min.js": ("flot@0.8.3", "jquery.flot.categories.js"),
    "jquery.flot.orderBars.js": ("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "stupidtable.min.js": ("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "md5.min.js": ("blueimp-md5@2.19.0", "js/md5.min.js"),
    "bootstrap.min.js": ("bootstrap@3.1.1", "dist/js/bootstrap.min.js"),
    "bootstrap.min.css": ("bootstrap@3.1.1", "dist/css/bootstrap.min.css"),
}
"""Package and member of what the page names; flot's own builds were never on npm."""
ANYONE = {"Access-Control-Allow-Origin": "*"}
COLOURED = """(canvas) => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((red, k) => k % 4 === 0 && data[k + 3] && red !== data[k + 2]).length;
}"""
"""How many pixels are of a curve: axes and grid are grey."""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give what the site's libraries hold, under the names that its page has for them."""
    folder = tmp_path_factory.mktemp("npm")
    packages = sorted({package for package, _ in NPM.values()})
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    if not shutil.which("npm"):
        pytest.skip("no npm, which the libraries of asv's site come from: apt-get install npm")
    command = ["npm", "pack", "--silent", *packages]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    archives = dict(zip(packages, done.stdout.split(), strict=True))
    found = {}
    for name, (package, member) in NPM.items():
        with tarfile.open(folder / archives[package]) as archive:
            file = archive.extractfile(f"package/{member}")
            assert file
            found[name] = file.read()
    return found


@pytest.fixture
def page(libraries: dict[str, bytes], tmp_path: Path) -> Iterator[Any]:
    """Serve the site to a browser; anything that goes wrong there fails the test."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install 'embconform[test]'")
    site = tmp_path / "clone/.asv/html"
    said: list[str] = []

    def serve(route: Any) -> None:
        where = urlsplit(route.request.url)
        if where.hostname != "site.invalid":
            route.fulfill(body=libraries[where.path.rpartition("/")[2]], headers=ANYONE)
        elif where.path == "/":
            # flot is here as it was written, so what it is compressed doesn't match
            text = (site / "index.html").read_text(encoding="utf-8")
            route.fulfill(body=re.sub(r' integrity="[^"]*"', "", text), content_type="text/html")
        elif (file := site / unquote(where.path).lstrip("/")).exists():
            route.fulfill(path=file)
        else:  # asv asks for benchmarks that have no results, too
            assert file.name.startswith("suite."), file
            route.fulfill(body="[]", content_type="application/json")

    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        opened = browser.new_page()
        opened.route("**/*", serve)
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        yield opened
        browser.close()
    assert said == []


def test_the_site_draws_commits_and_machines(call: Any, gpu: Path, page: Any) -> None:
    just_discover(call)
    bring = (sys.executable, "-m", "benchmarks.bring", str(gpu))
    for commit in ("HEAD~1", "HEAD"):
        for machine in ("gpu-box", "cpu-box"):
            call(*bring, "--machine", machine, "--commit", commit)
    call(*ASV, "publish", "HEAD~2..HEAD")
    page.goto("https://site.invalid/")
    page.get_by_text("Speed.track_seconds").click()
    graph = page.locator("#main-graph canvas.flot-base")
    graph.wait_for()
    assert graph.evaluate(COLOURED)
    panel = page.locator("#graphdisplay-navigation")
    for machine in ("gpu-box", "cpu-box"):
        assert panel.get_by_text(machine, exact=True).is_visible()


def _repository(folder: Path) -> Callable[..., str]:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=nobody", "-c", "user.email=nobody@invalid")
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    return git


def test_the_history_begins_at_a_tag_or_at_the_benchmarks(tmp_path: Path) -> None:
    site = _benchmarks("site")
    git = _repository(tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "Begin")
    with pytest.raises(site.SiteError, match="no tag before it and no benchmarks"):
        site.commits(root=tmp_path)
    first = git("rev-parse", "HEAD")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / site.BEGINS).write_text("")
    git("add", ".")
    git("commit", "-qm", "Measure")
    second = git("rev-parse", "HEAD")
    git("commit", "-q", "--allow-empty", "-m", "Go on")
    assert site.commits(root=tmp_path) == f"{first}..HEAD"
    git("tag", "v1")
    assert site.commits(root=tmp_path) == f"{second}..HEAD"
    assert site.commits(first, root=tmp_path) == "HEAD"
    git("checkout", "-q", "--orphan", "other")
    git("commit", "-q", "--allow-empty", "-m", "Elsewhere")
    with pytest.raises(site.SiteError, match="v1 is no commit that leads to HEAD"):
        site.commits("v1", root=tmp_path)
    with pytest.raises(site.SiteError, match="nothing is named v2"):
        site.commits("v2", root=tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "can't read"),
        ("[]", "is no file of embconform bench --json"),
        ('{"schema": 2, "results": []}', "is no file of embconform bench --json, schema 1"),
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bring", str(file), "--machine", "m"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def _benchmarks(name: str) -> Any:
    """Import a module of the benchmarks, which are no part of the package."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(f"benchmarks.{name}")
    finally:
        sys.path.remove(str(ROOT))


def test_devices_that_are_not_there_are_skipped_by_name() -> None:
    look_up = _benchmarks("common").look_up
    fine = {"status": "ok"}
    key = ("eager", "w", "forward", "cpu")
    assert look_up({"cpu": "", key: fine}, key) is fine
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        look_up({"cuda": "no CUDA device"}, (*key[:3], "cuda"))
    with pytest.raises(NotImplementedError, match="eager can't run here"):
        look_up({"cpu": ""}, key)
    with pytest.raises(NotImplementedError, match="has no sparse"):
        look_up({"cpu": "", key: {"status": "unsupported", "detail": "has no sparse"}}, key)


def test_commits_that_have_their_modules_elsewhere_are_skipped() -> None:
    common = _benchmarks("common")
    common.needs(*common.USED)
    with pytest.raises(NotImplementedError, match=r"this commit has no embconform\.nowhere"):
        common.needs("nowhere.at_all")


@pytest.mark.slow
def test_a_slowdown_between_two_commits_is_a_regression(call: Any, tmp_path: Path) -> None:
    file = tmp_path / "clone/backends/eager.py"
    text = file.read_text()
    file.write_text(text.replace("functional=torch.nn.functional.embedding,", SLOWED))
    assert file.read_text() != text
    call("git", "commit", "-qam", "Copy each output once more")
    said = call(
        *ASV, "continuous", "HEAD~1", "HEAD", "--factor", "1.5", "--bench", "Memory", code=1
    )
    line = next(line for line in said.splitlines() if "track_allocated" in line and "eager" in line)
    assert float(line.split("|")[4]) == pytest.approx(2, abs=0.05)
    assert "PERFORMANCE DECREASED" in said
    compared = call(*ASV, "compare", "HEAD~1", "HEAD", "--factor", "1.5", "--split")
    assert "track_allocated" in compared
    call(*ASV, "publish", "HEAD~2..HEAD")
    index = json.loads((tmp_path / "clone/.asv/html/index.json").read_text())
    assert len(index["revision_to_hash"]) >= 2


@pytest.mark.slow
def test_pytest_benchmark_runs_the_same_workloads(tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "-q", f"--benchmark-json={saved}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"EMBCONFORM_BENCHMARKS": "quick"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(saved.read_text())["benchmarks"]
    assert {entry["group"] for entry in found} == {
        "movielens-users-batch-uniform-float32 forward",
        "movielens-users-batch-uniform-float32 backward",
    }
