"""--database github://OWNER/REPOSITORY: failing cases that a team's CI found come first."""

from __future__ import annotations

import io
import json
import shutil
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from embconform.commands import main

WRONG = """
from torch.nn.functional import embedding

def embed(input, weight, padding_idx=None):
    return embedding(input, weight, padding_idx or None)
"""
MENDED = WRONG.replace("padding_idx or None", "padding_idx")
CALL = ("planted.py:embed", "--budget", "quick", "--max-examples", "60", "--select", "padding.*",
        "--isolation", "none")  # fmt: skip
HOST = "https://api.github.com"
LISTED = "/repos/team/kernels/actions/artifacts"


class GitHub(ThreadingHTTPServer):
    """As much of the API as reading an artifact takes, on loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.artifacts: dict[str, bytes] = {}
        self.listing: bytes | None = None
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, token: str | None) -> tuple[int, bytes]:
        self.asked.append(path)
        if token != "Bearer secret":
            return 401, b"{}"
        if path == LISTED:
            rows = [
                {"name": name, "created_at": "2026-01-01", "archive_download_url": f"{HOST}/{name}"}
                for name in self.artifacts
            ]
            return 200, self.listing or json.dumps({"artifacts": rows}).encode()
        data = self.artifacts.get(path[1:])
        return (404, b"{}") if data is None else (200, data)


class Handler(BaseHTTPRequestHandler):
    server: GitHub

    def do_GET(self) -> None:
        code, data = self.server.answer(self.path, self.headers["Authorization"])
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    made, real = GitHub(), urllib.request.urlopen

    def urlopen(request: urllib.request.Request) -> Any:
        request.full_url = request.full_url.replace(HOST, made.address)
        return real(request)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    (tmp_path / "planted.py").write_text(WRONG)
    return tmp_path


def zipped(folder: Path) -> bytes:
    """Pack a folder as actions/upload-artifact does."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return packed.getvalue()


def notes(*arguments: str) -> list[str]:
    assert main.run(["validate", *CALL, "--json", "x.json", *arguments]) in (0, 1)
    return list(json.loads(Path("x.json").read_text())["notes"])


@pytest.mark.parametrize("artifact", ["", "/nightly"])
def test_what_ci_found_comes_first(folder: Path, server: GitHub, artifact: str) -> None:
    assert notes("--database", "failures") == []
    server.artifacts[artifact[1:] or "embconform-failures"] = zipped(folder / "failures")
    shutil.rmtree(folder / "failures")
    where = ("--database", f"github://team/kernels{artifact}")
    (told,) = notes(*where)
    assert "still fail" in told
    assert "0 still fail" not in told
    asked = len(server.asked)
    (folder / "planted.py").write_text(MENDED)
    (told,) = notes(*where)
    assert "0 still fail" in told
    assert len(server.asked) == asked  # the artifact is fetched once a day
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {
        "cache", "planted.py", "x.json"
    }  # fmt: skip


def test_what_is_found_here_is_kept_here(
    folder: Path, server: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBCONFORM_DATABASE")
    empty = folder / "empty"
    empty.mkdir()
    (empty / "nothing").write_text("")
    server.artifacts["embconform-failures"] = zipped(empty)
    where = ("--database", "github://team/kernels")
    assert notes(*where) == []
    (told,) = notes(*where)
    assert "still fail" in told
    assert notes() == [told]  # the default folder alone has them


def refused(capfd: pytest.CaptureFixture[str], where: str) -> str:
    assert main.run(["validate", *CALL, "--json", "x.json", "--database", where]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"embconform: can't use --database {where}: ")
    assert not Path("x.json").exists()
    return err


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("answers", "token", "said"),
    [
        (({}, None), "secret", "Couldn't acquire a new or existing artifact"),
        (({"other": b""}, None), "secret", "Couldn't acquire a new or existing artifact"),
        (({"embconform-failures": b"no zip"}, None), "secret", "artifact from GitHub is invalid"),
        (({}, b"<html>"), "secret", "GitHub's answer can't be read (JSONDecodeError)"),
        (({}, b"{}"), "secret", "GitHub's answer can't be read (KeyError)"),
        (({}, None), "wrong", "Check that you have a valid GITHUB_TOKEN"),
        (({}, None), "", "GITHUB_TOKEN is not set"),
    ],
)
def test_an_artifact_that_cannot_be_read(
    server: GitHub,
    capfd: pytest.CaptureFixture[str],
    answers: tuple[dict[str, bytes], bytes | None],
    token: str,
    said: str,
) -> None:
    server.artifacts, server.listing = answers
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GITHUB_TOKEN", token)
        assert said in refused(capfd, "github://team/kernels")


def test_nobody_answers(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def urlopen(request: urllib.request.Request) -> Any:
        raise URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert "Could not connect to GitHub" in refused(capfd, "github://team/kernels")


def test_a_cache_that_cannot_be_written(
    folder: Path, server: GitHub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    assert "Not a directory" in refused(capfd, "github://team/kernels")
