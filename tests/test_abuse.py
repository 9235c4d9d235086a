"""Hundreds of malformed calls: exit 2 and one line each, whatever is wrong."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import cli_support
import pytest
from cli_support import GOOD, FakeEngine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embconform.commands import main

Call = tuple[str, ...]
Said = tuple[int, str, str]
runs = cli_support.runs

VALIDATE = ("validate", "good.py:embed")
BENCH = ("bench", "good.py:embed", "--quick")
FILES: dict[str, bytes] = {
    "good.py": GOOD.encode(),
    "empty": b"",
    "empty.py": b"",
    "bytes.py": b"\xff\xfe\x00\x01",
    "null.py": b"x = 1\0\n",
    "syntax.py": b"def embed(:\n",
    "tabs.py": b"def embed(i, w):\n\treturn 1\n        return 2\n",
    "leaves.py": b"import sys\nsys.exit(0)\n",
    "dies.py": b"import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
    "recurses.py": b"def f(): f()\nf()\n",
    "relative.py": b"from . import x\n",
    "names.py": b"number = 1\nnothing = None\ntext = 'a'\nrows = []\n",
    "evil.py": b"class M(type):\n    def __getattr__(c, n): raise ValueError('a\\nb')\n"
    b"class E(metaclass=M): pass\n",
    "noargs.py": b"def embed(): pass\n",
    "plain.py": b"class E: pass\n",
    "bytes.json": b"\xff\xfe\x00\x01",
    "list.json": b"[]",
    "object.json": b"{}",
    "number.json": b"1",
    "text.json": b'"x"',
    "null.json": b"null",
    "two.json": b"{}{}",
    "numbers.json": b"[1]",
    "half.json": b'{"schema": 1, "embconform": "0.1',
    "schema.json": b'[{"schema": 1}]',
    "later.json": b'{"schema": 99, "embconform": "9", "target": "good.py:embed"}',
    "bare.json": b'{"schema": 1, "embconform": "0", "target": "good.py:embed"}',
    "nan.json": b"NaN",
    "deep.json": b"[" * 100_000,
    "bytes.toml": b"\xff\xfe",
    "half.toml": b"[[deviation",
    "names.toml": b"[[deviations]]\nclause = 'lookup.rows'\n",
    "table.toml": b"[deviation]\nclause = 'lookup.rows'\n",
    "number.toml": b"deviation = 3\n",
    "numbers.toml": b"deviation = [1, 2]\n",
    "bare.toml": b"[[deviation]]\n",
    "reason.toml": b"[[deviation]]\nclause = 'lookup.rows'\nlink = 'x'\n",
    "blank.toml": b"[[deviation]]\nclause = 'lookup.rows'\nreason = ' '\nlink = 'x'\n",
    "kinds.toml": b"[[deviation]]\nclause = 7\nreason = 'a'\nlink = 'x'\n",
    "clause.toml": b"[[deviation]]\nclause = 'lookup.row'\nreason = 'a'\nlink = 'x'\n",
    "key.toml": b"[[deviation]]\nclause = 'lookup.rows'\nreason = 'a'\nlink = 'x'\nlnk = 'x'\n",
    "versions.toml": b"[[deviation]]\nclause = 'lookup.rows'\nreason = 'a'\nlink = 'x'\n"
    b"versions = '>=2'\n",
    "version.toml": b"[[deviation]]\nclause = 'lookup.rows'\nreason = 'a'\nlink = 'x'\n"
    b"versions = {torch = 'new'}\n",
    "twice.toml": b"a = 1\na = 2\n",
}
SHARDS = ("s1.json", "s2.json")


def each(call: Call, values: str, said: str) -> Iterator[tuple[Call, str]]:
    """List calls that differ in their last word; words are divided by blanks, '' is none at all."""
    for value in values.split(" "):
        yield (*call, "" if value == "''" else value), said


LONG = "x" * 300
NUMBERS = "'' abc 0x10 1,5 5s"
WHOLE = f"nan inf 1.5 1e3 - {NUMBERS}"
LISTED: list[tuple[Call, str]] = [
    *(
        case
        for option in ("--case-timeout", "--timeout")
        for case in (
            *each((*VALIDATE, option), NUMBERS, "is not a valid float"),
            *each(
                (*VALIDATE, option),
                "nan NaN +nan -nan inf -inf Infinity 1e400 1e308 0 -0 -0.0 -1 1e-400",
                "in the range 0<x<=2592000",
            ),
        )
    ),
    *each((*VALIDATE, "--memory"), NUMBERS, "is not a valid float"),
    *each(
        (*VALIDATE, "--memory"),
        "nan -nan inf 1e400 1e308 1e18 0 -0 -1 0.05",
        "in the range 0.1<=x<=1048576",
    ),
    *each((*BENCH, "--seconds"), NUMBERS, "is not a valid float"),
    *each((*BENCH, "--seconds"), "nan inf -inf 1e400 1e308 0 0.5 -1", "in the range 1<=x<=2592000"),
    *(
        case
        for option in ("--seed", "--max-examples", "--workers")
        for case in (
            *each((*VALIDATE, option), WHOLE, "is not a valid integer"),
            *each((*VALIDATE, option), f"-1 {'9' * 30}", "is not in the range"),
        )
    ),
    *each(("selftest", "--seed"), f"x -1 {'9' * 30}", "--seed"),
    *each(("selftest", "--workers"), "x 0 -1 257 nan", "--workers"),
    *each((*BENCH, "--threads"), f"x 0 -1 1025 {'9' * 30}", "--threads"),
    *each((*BENCH, "--seed"), "x -1 nan", "--seed"),
    *each(
        (*VALIDATE, "--shard"),
        "1 1/ /1 0/1 2/1 1/0 -1/2 1/2/3 1.0/2 a/b '' 1/1001 1/99999 \u0661/\u0662 1/2\n",
        "is not I/N with 1 <= I <= N <= 1000, such as 1/3",
    ),
    *each(
        (*VALIDATE, "--for"),
        "'' 0 0s 1 h 1.5h -1s 1d 1h1h 1s1m 9999h nan inf \u0663s 1h\n 1H s",
        "is no time up to 30 days, such as 2h, 1h30m or 45s",
    ),
    *each((*VALIDATE, "--budget"), "'' x QUICK quick,default", "'quick', 'default', 'thorough'"),
    *each((*VALIDATE, "--profile"), "'' x Torch both", "'torch', 'textbook'"),
    *each((*VALIDATE, "--device"), "'' x cuda:0 gpu CPU", "'cpu', 'cuda'"),
    *each((*VALIDATE, "--isolation"), "'' x None process,none", "'process', 'none'"),
    *each((*BENCH, "--cache"), "'' x WARM", "'warm', 'cold', 'both'"),
    *each((*BENCH, "--device"), "'' x cuda:0", "'cpu', 'cuda'"),
    *each((*BENCH, "--workload"), "'' nope [ , x\0y", "matches no workload"),
    *each((*BENCH, "--passes"), "'' nope forward,nope , forward,,backward FORWARD", "there are"),
    *each(("clauses", "--profile"), "'' x TORCH", "'torch', 'textbook'"),
    *each(("clauses",), "'' zzz x\0y Padding \n .", "no clause is called"),
    *each(("clauses",), "zzz.* [x] *nope*", "no clause matches"),
    *(
        case
        for call in (VALIDATE, ("selftest",))
        for case in (
            *each(
                (*call, "--select"),
                f"'' nope *nope* , [ lookup.Rows x\0y lookup.rows,nope lookup.rows, {LONG}",
                "matches no clause",
            ),
            *each((*call, "--select"), "lookup", "'lookup.*'?"),
        )
    ),
    *(
        case
        for call, options in (
            (VALIDATE, ("--json", "--junit", "--markdown", "--repro-dir", "--resume")),
            (VALIDATE, ("--deviations",)),
            (BENCH, ("--json", "--html", "--plot")),
            (("selftest",), ("--json",)),
            (("merge",), ()),
        )
        for option in (*((o,) for o in options), *([()] if not options else []))
        for case in (
            *each((*call, *option), "''", "the name is empty; give a path"),
            *each((*call, *option), "x\0y", "holds a null byte"),
            *each((*call, *option), f"{LONG} {LONG}/x", "is too long; a name has at most 255"),
        )
    ),
    *(
        case
        for call, options in (
            (VALIDATE, ("--json", "--junit", "--markdown")),
            (BENCH, ("--json", "--html")),
            (("selftest",), ("--json",)),
        )
        for option in options
        for case in (
            *each((*call, option), "folder . folder/", "it is a folder"),
            *each((*call, option), "absent/x", "there is no folder"),
            *each((*call, option), "good.py/x", "is not a folder"),
            *each((*call, option), "loop", "symlink loop"),
        )
    ),
    *each((*VALIDATE, "--repro-dir"), "good.py good.py/x empty", "is not a folder"),
    *each((*BENCH, "--plot"), "x.pdf x png", "must end in .png or .svg"),
    *each((*VALIDATE, "--junit"), "-", "only --json may go to stdout"),
    *each((*VALIDATE, "--markdown"), "-", "only --json may go to stdout"),
    *each((*BENCH, "--plot"), "-", "only --json may go to stdout"),
    *each((*BENCH, "--html"), "-", "only --json may go to stdout"),
    ((*VALIDATE, "--json", "x", "--junit", "./x"), "are the same file"),
    ((*BENCH, "--json", "x.png", "--plot", "x.png"), "are the same file"),
    *(
        case
        for call in ((*VALIDATE, "--resume"), ("merge",), ("merge", "s1.json"))
        for case in (
            *each(
                call,
                "absent.json folder empty bytes.json two.json half.json deep.json good.py loop",
                "",  # the operating system's words, or those of the reader of JSON
            ),
            *each(call, "list.json", "holds no report"),
            *each(
                call,
                "object.json number.json text.json null.json numbers.json schema.json nan.json",
                "is no report of embconform validate --json",
            ),
            *each(call, "later.json", "has schema 99; this embconform reads schema 1"),
            *each(call, "bare.json", "or a damaged one"),
            *each(call, "fifo /dev/zero /dev/null", "is no file"),
        )
    ),
    *each((*VALIDATE, "--resume"), "s1.json", "add --shard 1/2"),
    (("merge", "s1.json"), "shard 2/2 is missing"),
    (("merge", "s1.json", "s1.json"), "are both shard 1/2"),
    (("merge", "s1.json", "s2.json", "s1.json"), "are both shard 1/2"),
    *each((*VALIDATE, "--deviations"), "absent.toml absent absent/x loop", "can't read deviations"),
    *each((*VALIDATE, "--deviations"), "fifo folder . /dev/zero", "it is no file"),
    *each(
        (*VALIDATE, "--deviations"),
        "bytes.toml half.toml twice.toml good.py object.json",
        "is not TOML",
    ),
    *each((*VALIDATE, "--deviations"), "names.toml", "did you mean 'deviation'?"),
    *each(
        (*VALIDATE, "--deviations"),
        "table.toml number.toml numbers.toml",
        "rows are [[deviation]] tables",
    ),
    *each((*VALIDATE, "--deviations"), "bare.toml", "row 1: 'clause' is missing"),
    *each((*VALIDATE, "--deviations"), "reason.toml", "row 1: 'reason' is missing"),
    *each((*VALIDATE, "--deviations"), "blank.toml kinds.toml", "must be a text that isn't empty"),
    *each((*VALIDATE, "--deviations"), "clause.toml", "did you mean 'lookup.rows'?"),
    *each((*VALIDATE, "--deviations"), "key.toml", "keys are clause, reason, link, versions"),
    *each((*VALIDATE, "--deviations"), "versions.toml", 'such as {torch = ">=2.9,<2.14"}'),
    *each((*VALIDATE, "--deviations"), "version.toml", 'write it like ">=2.9,<2.14"'),
    *each(
        (*VALIDATE, "--database"),
        "'' http://x memory:// sqlite:///x file:///tmp/x ://",
        "redis://HOST:PORT/NUMBER",
    ),
    *each(
        (*VALIDATE, "--database"),
        "redis://localhost:1 redis://localhost:99999/0 redis://localhost:x/0 redis://[::1 "
        "redis://localhost:1/x rediss://localhost:1/0 REDIS://localhost:1/0",
        "can't use --database",
    ),
    *each(
        (*VALIDATE, "--database"),
        "github: github://x github://x/y/z/w github:///y github://x/ github://x/y?z github://-/y",
        "is not github://OWNER/REPOSITORY or",
    ),
    *each((*VALIDATE, "--database"), "empty good.py/sub /dev/null fifo", "is not a folder"),
    *each((*VALIDATE, "--database"), f"x\0y loop {LONG}", "can't use --database"),
    *each(
        (*VALIDATE, "--scheduler"),
        "'' x tcp:// tcp://x tcp://x: tcp://localhost:0 tcp://localhost:99999 tcp://localhost:abc "
        "http://x:1 inproc://x ws://127.0.0.1:1 tcp://[::1 tcp://x\0y:1 127.0.0.1:8786",
        "is not tcp://HOST:PORT",
    ),
    *each((*VALIDATE, "--scheduler"), "tcp://127.0.0.1:1 tls://[::1]:1", "can't use --scheduler"),
    ((*VALIDATE, "--workers", "2", "--isolation", "none"), "--isolation process"),
    ((*VALIDATE, "--shard", "1/2", "-x"), "leave one out"),
    ((*VALIDATE, "--for", "1s", "--shard", "1/2"), "leave --shard, --resume and --timeout out"),
    ((*VALIDATE, "--for", "1s", "--timeout", "1"), "leave --shard, --resume and --timeout out"),
    ((*VALIDATE, "--resume", "s1.json", "-x"), "leave --fail-fast out"),
    ((*VALIDATE, "eager", "--resume", "s1.json"), "name only that one"),
    ((*VALIDATE, "--strict=1"), "does not take a value"),
    ((*VALIDATE, "-x", "-y"), "No such option"),
    ((*VALIDATE, "--jsn", "x"), "No such option"),
    ((*VALIDATE, "--json"), "requires an argument"),
    *((call, "Missing argument") for call in (("validate",), ("merge",), ("bench",))),
    (("validate", "--"), "Missing argument"),
    (("backends", "x"), "unexpected extra argument"),
    (("selftest", "x"), "unexpected extra argument"),
    (("clauses", "a", "b"), "unexpected extra argument"),
    *each((), "'' nope Validate - x\0y é validate\neager", "No such command"),
    *each((), "--nope -y", "No such option"),
    *each((), "--version=1 --help=x", "does not take a value"),
    *(
        case
        for call in (("validate",), BENCH, ("bench", "--quick", "eager", "--against"))
        for case in (
            *each(call, "''", "the target is empty"),
            *each(call, "egaer EAGER nope 🎉 x\0y", "no backend is called"),
            *each(call, ": x: :x good.py: :good.py", "is not a target; give a name"),
            *each(call, "good.py", "as in good.py:embed"),
            *each(call, "good.py:embd", "did you mean 'embed'?"),
            *each(call, "good.py:x\0y good.py:a..b good.py:.", "has no"),
            *each(call, "god.py:embed", "did you mean 'good.py'?"),
            *each(call, "absent/x.py:f", "no folder absent"),
            *each(call, "folder.py:f", "is a folder; name a .py file in it"),
            *each(call, "fifo.py:f", "no file fifo.py"),
            *each(call, f"{LONG}.py:f {'x/' * 3000}x.py:f", "ile name too long"),
            *each(call, "no-such:f 1:2 a:b:c", "is no module's name"),
            *each(call, "nosuch:f nosuch.module:f", "no module named 'nosuch'"),
            *each(call, "os.pth:join", "os has no module 'pth'"),
            *each(
                call,
                "bytes.py:f null.py:f syntax.py:f tabs.py:f leaves.py:f recurses.py:f "
                "relative.py:f",
                "importing",
            ),
            *each(call, "evil.py:E", "evil.py:E"),
            *each(call, "names.py:number names.py:nothing math:pi", "can't be called"),
            *each(call, "noargs.py:embed", "noargs.py:embed"),
        )
    ),
    *each(("validate",), "dies.py:f", "the process died of SIGSEGV"),
    *each(BENCH, "dies.py:f", "the process died of SIGSEGV"),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with much that can't be used, and the two shards of a run."""
    made = tmp_path_factory.mktemp("abuse")
    for name, data in FILES.items():
        (made / name).write_bytes(data)
    for name in ("folder", "folder.py"):
        (made / name).mkdir()
    for name in ("fifo", "fifo.py"):
        os.mkfifo(made / name)
    (made / "loop").symlink_to("loop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        for k, name in enumerate(SHARDS, 1):
            call = (*VALIDATE, "--budget", "quick", "--max-examples", "9", "--database", "none",
                    "--select", "lookup.rows,padding.*", "--shard", f"{k}/2",
                    "--json", name)  # fmt: skip
            assert main.run(call) in (0, 1)
    return made


@pytest.fixture
def call(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Said]]:
    """Call the command line in the folder; nothing may be written there."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    there = {path.name for path in place.iterdir()}

    def made(*words: str) -> Said:
        capfd.readouterr()
        code = main.run(words)
        return code, *capfd.readouterr()

    yield made
    assert {path.name for path in place.iterdir()} - {"__pycache__"} == there


def refused(result: Said, said: str = "") -> None:
    """Demand exit 2 and one line."""
    code, out, err = result
    assert (code, out) == (2, ""), err
    assert err.startswith("embconform: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert len(err) > len("embconform: x\n")
    assert said in err


def test_enough_is_listed() -> None:
    assert len({words for words, _ in LISTED}) >= 400


@pytest.mark.parametrize(
    ("words", "said"), LISTED, ids=[ascii(" ".join(words))[1:60] for words, _ in LISTED]
)
def test_listed(call: Callable[..., Said], runs: FakeEngine, words: Call, said: str) -> None:
    result = call(*words)
    refused(result, said)
    assert runs.seen == []


# drawn

DRAWN = settings(
    max_examples=int(os.environ.get("EMBCONFORM_ABUSE_EXAMPLES", "60")),
    derandomize="EMBCONFORM_ABUSE_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""The same calls in each run; more, and others, for whoever looks for more."""
ESCAPED = st.integers(0xDC80, 0xDCFF).map(chr)
"""How Python holds a byte of a command line that is no UTF-8."""
TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), ESCAPED), max_size=12)


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


NO_NUMBERS = TEXTS.filter(lambda text: not is_number(text))
NUMBER_OPTIONS = st.sampled_from([
    (*VALIDATE, "--case-timeout"), (*VALIDATE, "--timeout"), (*VALIDATE, "--memory"),
    (*VALIDATE, "--seed"), (*VALIDATE, "--max-examples"), (*VALIDATE, "--workers"),
    (*VALIDATE, "--shard"), (*VALIDATE, "--budget"), (*VALIDATE, "--device"),
    (*BENCH, "--seconds"), (*BENCH, "--threads"), (*BENCH, "--seed"), (*BENCH, "--cache"),
    ("selftest", "--seed"), ("selftest", "--workers"),
])  # fmt: skip


@DRAWN
@given(option=NUMBER_OPTIONS, text=NO_NUMBERS)
def test_drawn_values(call: Callable[..., Said], runs: FakeEngine, option: Call, text: str) -> None:
    refused(call(*option[:-1], f"{option[-1]}={text}"))


@DRAWN
@given(words=st.lists(TEXTS, max_size=4))
def test_drawn_words(call: Callable[..., Said], words: list[str]) -> None:
    names = {"validate", "merge", "bench", "clauses", "backends", "selftest", "--help", "-h", "--"}
    if words and not names.isdisjoint(words):
        return
    code, _, err = call(*words)
    assert code == (2 if words else 0), err
    if words:
        assert err.count("\n") == 1


@DRAWN
@given(
    command=st.sampled_from(["validate", "merge", "bench", "clauses", "backends", "selftest"]),
    words=st.lists(
        TEXTS.filter(lambda t: t not in ("-h", "--help", "--", "")), min_size=3, max_size=5
    ),
)  # fmt: skip
def test_drawn_words_after_a_command(
    call: Callable[..., Said], runs: FakeEngine, command: str, words: list[str]
) -> None:
    refused(call(command, *words))


@DRAWN
@given(text=TEXTS, attr=st.one_of(st.just(""), TEXTS))
def test_drawn_targets(call: Callable[..., Said], runs: FakeEngine, text: str, attr: str) -> None:
    if text.startswith("-"):
        text = f"x{text}"
    refused(call("validate", f"{text}:{attr}" if attr else text))


@DRAWN
@given(scheme=TEXTS, rest=TEXTS)
def test_drawn_databases(
    call: Callable[..., Said], runs: FakeEngine, scheme: str, rest: str
) -> None:
    refused(call(*VALIDATE, f"--database={scheme}://{rest}"))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.sampled_from([10**400, -1, 2**63, "lookup.rows", [[0, 10**9]], [[1, 0]]]),
)  # fmt: skip
GONE = object()


def places(value: Any) -> list[tuple[Any, ...]]:
    """List the paths to all that a document holds."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple[Any, ...]] = []
    for key, inner in pairs:
        found.append((key,))
        if isinstance(inner, dict | list):
            found += [(key, *path) for path in places(inner)]
    return found


def altered(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Put a value at a place of a document, or take away what stands there."""
    made = deepcopy(document)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return made


@pytest.mark.slow
@settings(DRAWN, max_examples=4 * DRAWN.max_examples)
@given(data=st.data())
def test_drawn_reports(
    call: Callable[..., Said], runs: FakeEngine, tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:  # fmt: skip
    """A damaged shard is refused, or the damage is in what is only shown."""
    document = json.loads(Path("s1.json").read_text())
    path = data.draw(st.sampled_from(places(document)))
    value = data.draw(st.one_of(VALUES, st.just(GONE)))
    folder = tmp_path_factory.mktemp("drawn")
    file, out = folder / "shard.json", folder / "out.json"
    file.write_text(json.dumps(altered(document, path, value)))
    for words in (
        ("merge", str(file), "s2.json", "--json", str(out)),
        (*VALIDATE, "--shard", "1/2", "--resume", str(file), "--json", str(out)),
    ):
        result = call(*words)
        if result[0] == 2:
            refused(result)
            assert not out.exists()
        else:
            assert result[0] in (0, 1), result[2]
            assert "Traceback" not in result[2]
            json.loads(out.read_text())
            out.unlink()


@DRAWN
@given(data=st.binary(max_size=60))
def test_drawn_bytes(
    call: Callable[..., Said], runs: FakeEngine, tmp_path_factory: pytest.TempPathFactory,
    data: bytes,
) -> None:  # fmt: skip
    file = tmp_path_factory.mktemp("drawn") / "x"
    file.write_bytes(data)
    refused(call("merge", str(file)))
    refused(call(*VALIDATE, "--resume", str(file)))
    refused(call(*VALIDATE, "--deviations", str(file), "--budget", "x"))


ROW = {"clause": "lookup.rows", "reason": "a", "link": "b"}
NO_TEXT = st.one_of(st.integers(), st.floats(), st.booleans(), st.just(""), st.lists(st.integers()))


@DRAWN
@given(key=st.sampled_from([*ROW, "versions", "other"]), value=NO_TEXT)
def test_drawn_deviations(
    call: Callable[..., Said], runs: FakeEngine, tmp_path_factory: pytest.TempPathFactory,
    key: str, value: Any,
) -> None:  # fmt: skip
    def plain(value: Any) -> str:
        return repr(value).lower() if isinstance(value, bool | float) else json.dumps(value)

    file = tmp_path_factory.mktemp("drawn") / "rows.toml"
    row = "".join(f"{name} = {plain(given)}\n" for name, given in (ROW | {key: value}).items())
    file.write_text(f"[[deviation]]\n{row}")
    refused(call(*VALIDATE, "--deviations", str(file)), "row 1")


# surroundings


@pytest.mark.parametrize("where", ["/dev/null/x", "http://x", "redis://localhost:1/0", "good.py"])
def test_a_database_of_the_environment(
    call: Callable[..., Said], runs: FakeEngine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("EMBCONFORM_DATABASE", where)
    refused(call(*VALIDATE), where)
    assert runs.seen == []


def test_a_folder_for_temporary_files_that_is_none(
    call: Callable[..., Said], runs: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(*VALIDATE, "--database", "none")  # so that the server of targets is there
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/dev/null/absent")
        result = call(*VALIDATE, "--database", "none")
    refused(result, "let TMPDIR name one that can be written to")


def test_no_home_is_no_reason_not_to_run(
    call: Callable[..., Said], runs: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("EMBCONFORM_DATABASE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "home", nowhere)
        code, out, err = call(*VALIDATE)
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("value", ["abc", "0", "-5", "", "9" * 30])
@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
def test_the_size_of_a_terminal(
    call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with monkeypatch.context() as patch:  # pytest too looks at them, once the test is over
        patch.setenv(name, value)
        code, out, err = call("clauses")
    assert (code, err) == (0, "")
    assert "lookup.rows" in out


def test_a_folder_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code = main.run(["validate", "eager"])
    refused((code, *capfd.readouterr()), "change to one that exists")


@pytest.mark.parametrize("fault", [OSError(24, "Too many open files"), OSError(28, "No space"),
                                   MemoryError()])  # fmt: skip
def test_a_machine_that_gives_no_more(
    call: Callable[..., Said], runs: FakeEngine, fault: BaseException
) -> None:
    def fail() -> None:
        raise fault

    runs.act = fail
    refused(call(*VALIDATE, "--database", "none"), "this machine gives no more")


def test_other_faults_of_the_system_are_ours(call: Callable[..., Said], runs: FakeEngine) -> None:
    def fail() -> None:
        raise OSError(9, "Bad file descriptor")

    runs.act = fail
    code, _, err = call(*VALIDATE, "--database", "none")
    assert code == 3
    assert "Traceback" in err


SHORT = (
    "validate good.py:embed --budget quick --max-examples 1 --select lookup.rows --database none"
)


def shell(place: Path, words: str, tail: str) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m embconform {words} {tail}"],
        cwd=place, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_closed_streams_are_no_reason_not_to_run(place: Path) -> None:
    assert shell(place, SHORT, "<&- >&- 2>&-") == (0, "")


def test_a_full_disk_is_no_verdict(place: Path) -> None:
    assert shell(place, "clauses", ">/dev/full 2>/dev/full") == (2, "")
    code, err = shell(place, "clauses nope", "2>&-")
    assert (code, err) == (2, "")
