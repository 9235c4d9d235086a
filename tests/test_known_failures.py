"""Failing cases persist as plain data, come first in the next run, and go when they hold."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase
from hypothesis.database import InMemoryExampleDatabase

from embconform.backends.adapt import as_backend
from embconform.commands import main
from embconform.commands.database import default_folder
from embconform.conformance.cases.case import Case
from embconform.conformance.cases.case_record import CaseRecordError, KnownFailure, pack, unpack
from embconform.conformance.cases.structure import Structure
from embconform.conformance.report import Report, Status
from embconform.conformance.running.engine import RunOptions, Spread, run
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.in_process import InProcess
from embconform.conformance.running.known_failures import KnownFailures
from embconform.conformance.running.work import Draws
from embconform.mutants.kernel import Kernel
from embconform.reference.clause import Profile

RIGHT = as_backend("kernel", Kernel())
SELECT = "padding.[!w]*"
PLANTED = (
    "from torch.nn.functional import embedding\n\ndef embed(input, weight, padding_idx=None):\n"
)
WRONG = PLANTED + "    return embedding(input, weight, padding_idx or None)\n"
MENDED = PLANTED + "    return embedding(input, weight, padding_idx)\n"
CALL = ("planted.py:embed", "--budget", "quick", "--max-examples", "120", "--select", SELECT)


def zero_is_none(input, weight, padding_idx=None):  # type: ignore[no-untyped-def]  # noqa: A002
    from torch.nn.functional import embedding

    return embedding(input, weight, padding_idx or None)


def judged(database: InMemoryExampleDatabase, function: object, select: str = SELECT) -> Report:
    options = RunOptions(Profile.TORCH, budget="quick", select=select, max_examples=120)
    known = KnownFailures(database, "t")
    backend = as_backend("t", function)  # type: ignore[arg-type]
    return run(backend, options, target="t", spread=Spread(known=known))


def drawn() -> list[tuple[Case, Structure]]:
    """The first cases of all strata."""
    found: list[tuple[Case, Structure]] = []
    explorer = Explorer(InProcess(RIGHT), RunOptions(Profile.TORCH, budget="quick"))
    for unit in explorer.work:
        if isinstance(unit, Draws):
            explorer.driver.drive(unit, found.extend, Phase.generate)
    return [pair for pair in found if pair[1].size not in ("hot", "vast", "crowd")]


class TestRecords:
    def test_every_case_survives(self) -> None:
        cases = drawn()
        assert len(cases) > 500
        for case, structure in cases:
            data = pack(KnownFailure("lookup.rows", case, structure))
            again = unpack(data)
            assert repr(again.case) == repr(case)
            assert again.case.weight.values.tobytes() == case.weight.values.tobytes()
            assert again.case.weight.values.dtype == case.weight.values.dtype
            assert (again.clause, again.structure) == ("lookup.rows", structure)
            assert pack(again) == data

    @pytest.fixture(scope="class")
    @classmethod
    def good(cls) -> bytes:
        case, structure = drawn()[0]
        return pack(KnownFailure("lookup.rows", case, structure))

    @pytest.mark.parametrize("data", [b"", b"x", b"PK\x05\x06" + bytes(18), pickle.dumps(print)])
    def test_other_bytes_are_refused(self, data: bytes) -> None:
        with pytest.raises(CaseRecordError):
            unpack(data)

    def test_a_pickle_is_never_loaded(self) -> None:
        stream = io.BytesIO()
        np.savez(stream, json=np.array([{"format": 1}], dtype=object))
        with pytest.raises(CaseRecordError, match="allow_pickle"):
            unpack(stream.getvalue())

    def test_a_bomb_is_refused(self) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("json.npy", bytes(300 * 2**20))
        with pytest.raises(CaseRecordError, match="too large"):
            unpack(stream.getvalue())

    def test_every_changed_byte_is_read_or_refused(self, good: bytes) -> None:
        for place in range(0, len(good), 3):
            changed = bytearray(good)
            changed[place] ^= 0x15
            try:
                unpack(bytes(changed))
            except CaseRecordError:
                continue

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ('"contiguous"', '"sideways"'),
            ('"grad"', '"other"'),
            ('"functional"', '"other"'),
            ('"float32"', '"object"'),
            ('"is": "Call"', '"is": "Path"'),
            ('"format": 2', '"format": 3'),
        ],
    )
    def test_odd_values_are_refused(self, good: bytes, before: str, after: str) -> None:
        with np.load(io.BytesIO(good)) as parts:
            arrays = {name: parts[name] for name in parts.files}
        text = arrays["json"].tobytes().decode()
        assert before in text
        changed = text.replace(before, after).encode()
        arrays["json"] = np.frombuffer(changed, np.uint8)
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        with pytest.raises(CaseRecordError):
            unpack(stream.getvalue())


class TestReplays:
    def test_come_first_and_count_under_their_clause(self) -> None:
        database = InMemoryExampleDatabase()
        first = judged(database, zero_is_none)
        again = judged(database, zero_is_none)
        broken = {r.clause.id: r for r in first.clauses if r.status is Status.FAIL}
        known = len(database.data[KnownFailures(database, "t").key(_options())])
        assert broken
        assert 0 < known <= len(broken)
        assert f"of {known} known failures, replayed first, {known} still fail" in again.notes
        assert again.cases == first.cases + known
        more = {r.clause.id: r for r in again.clauses}
        for name, result in broken.items():
            assert more[name].failed > result.failed

    def test_show_a_failure_that_the_run_would_not_draw(self) -> None:
        database = InMemoryExampleDatabase()
        judged(database, zero_is_none)
        options = RunOptions(
            Profile.TORCH, budget="quick", select=SELECT, max_examples=1, fail_fast=True
        )
        backend = as_backend("t", zero_is_none)
        for known, status in ((None, False), (KnownFailures(database, "t"), True)):
            report = run(backend, options, target="t", spread=Spread(known=known))
            assert bool(report.with_status(Status.FAIL)) is status

    def test_are_forgotten_once_they_hold(self) -> None:
        database = InMemoryExampleDatabase()
        judged(database, zero_is_none)
        mended = judged(database, RIGHT.functional or RIGHT.module)
        assert "0 still fail" in mended.notes[0]
        assert "no longer and are forgotten" in mended.notes[0]
        assert not any(database.data.values())
        assert judged(database, Kernel()).notes == ()

    def test_of_clauses_that_nobody_selects_are_kept(self) -> None:
        database = InMemoryExampleDatabase()
        judged(database, zero_is_none)
        before = {key: set(values) for key, values in database.data.items()}
        judged(database, Kernel(), "lookup.rows")
        assert database.data == before


def _options() -> RunOptions:
    return RunOptions(Profile.TORCH)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted.py").write_text(WRONG)
    return tmp_path


def cases_and_notes(*arguments: str) -> tuple[int, list[str]]:
    main.run(["validate", *CALL, "--json", "x.json", *arguments])
    document = json.loads(Path("x.json").read_text())
    return document["cases"], document["notes"]


def through(folder: Path, *where: str) -> None:
    """Find failures, replay them, mend the target, and see that they are forgotten."""
    first, nothing = cases_and_notes(*where)
    again, told = cases_and_notes(*where)
    assert nothing == []
    assert again > first
    assert "still fail" in told[0]
    (folder / "planted.py").write_text(MENDED)
    _, told = cases_and_notes(*where)
    assert "0 still fail" in told[0]
    assert cases_and_notes(*where) == (first, [])


def test_a_folder(folder: Path) -> None:
    through(folder, "--database", "known")
    assert {path.name for path in folder.iterdir()} >= {"known", "planted.py", "x.json"}


def test_the_default_folder_is_in_the_users_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("EMBCONFORM_DATABASE")
    cases_and_notes()
    assert default_folder().is_relative_to(cache)
    assert list(default_folder().rglob("*"))
    assert {path.name for path in folder.iterdir()} == {"planted.py", "x.json", "__pycache__"} - (
        set() if (folder / "__pycache__").exists() else {"__pycache__"}
    )


def test_entries_that_cannot_be_read_are_told_and_kept(folder: Path) -> None:
    cases_and_notes("--database", "known")
    entries = [path for path in (folder / "known").rglob("*") if path.is_file()]
    for entry in entries:
        entry.write_bytes(b"no case")
    _, told = cases_and_notes("--database", "known")
    assert any("can't be read and were left alone" in note for note in told)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("planted.py", "is not a folder"),
        ("redis://localhost:1/0", "can't use --database redis://localhost:1/0"),
        ("redis://user:secret@localhost:1/0", "can't use --database redis://user:…@localhost:1/0"),
        ("http://localhost/", "is no folder, no redis://HOST:PORT/NUMBER, no github://"),
        ("redis://localhost:port/0", "can't use --database"),
    ],
)
def test_a_database_that_cannot_be_used(
    folder: Path, capfd: pytest.CaptureFixture[str], where: str, said: str
) -> None:
    assert main.run(["validate", *CALL, "--database", where, "--json", "x.json"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err
    assert not (folder / "x.json").exists()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """A server of our own; CI installs Debian's package redis-server."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian's package redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


def test_a_redis_server(folder: Path, redis: str) -> None:
    through(folder, "--database", redis)
