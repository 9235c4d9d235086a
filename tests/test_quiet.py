# ruff: noqa: T201

import os
import subprocess
import sys
import textwrap

import pytest

from embconform.conformance.quiet import LIMIT, captured_output


def _python(code: str, **options) -> subprocess.CompletedProcess[str]:
    before = "from embconform.conformance.quiet import captured_output\nimport os, sys\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", before + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_every_way_of_printing_is_caught(capfd):
    with captured_output() as captured:
        print("one")
        sys.stderr.write("two\n")
        os.write(1, b"three\n")
        os.write(2, b"four\n")
        subprocess.run(["echo", "five"], check=True)
    print("after")
    assert capfd.readouterr().out == "after\n"
    for word in ("one", "two", "three", "four", "five"):
        assert word in captured.head
    assert captured.total_bytes == len("one two three four five ")


def test_a_flood_is_counted_and_cut():
    with captured_output() as captured:
        for _ in range(64):
            os.write(1, b"x" * (1 << 20))
    assert captured.total_bytes == 64 << 20
    assert captured.head == "x" * LIMIT


def test_the_limit_is_the_callers():
    with captured_output(limit=3) as captured:
        os.write(1, b"abcdef")
    assert (captured.head, captured.total_bytes) == ("abc", 6)


def test_half_a_character_is_no_error():
    with captured_output(limit=1) as captured:
        os.write(1, "é".encode())
    assert captured.head == "\ufffd"


def test_output_comes_back_after_an_exception(capfd):
    def fail():
        with captured_output():
            print("hidden")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    print("seen")
    assert capfd.readouterr().out == "seen\n"


def test_it_nests():
    with captured_output() as outer:
        print("a")
        with captured_output() as inner:
            print("b")
        print("c")
    assert (outer.head, inner.head) == ("a\nc\n", "b\n")


def test_no_descriptor_is_left_open():
    def count():
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = count()
    for _ in range(20):
        with captured_output() as captured:
            print("x")
        captured._thread.join(5)
    assert count() <= before  # fewer where a test before this one is still closing its own


def test_terminal_is_the_stderr_from_before(capfd):
    with captured_output() as captured:
        print("progress", file=captured.terminal)
        assert not captured.terminal.isatty()
    assert capfd.readouterr().err == "progress\n"


def test_a_stream_kept_from_inside_still_writes(capfd):
    with captured_output():
        kept = sys.stdout
    print("late", file=kept, flush=True)
    assert capfd.readouterr().out in {"", "late\n"}


@pytest.mark.parametrize("number", [1, 2])
def test_a_closed_descriptor(number):
    code = f"""
        import pathlib
        os.close({number})
        with captured_output() as captured:
            print("in")
            os.write({number}, b"raw")
            print("progress", file=captured.terminal)
        assert captured.total_bytes in (3, 6), captured.total_bytes
        try:
            os.fstat({number})
        except OSError:
            pass
        else:
            sys.exit(9)
        os._exit(0)
    """
    assert _python(code).returncode == 0


def test_streams_that_are_none():
    code = """
        sys.stdout = sys.stderr = None
        with captured_output() as captured:
            print("in")
        assert captured.head == "in\\n"
        assert sys.stdout is None
    """
    result = _python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_foreign_code_that_closes_stdout():
    code = """
        with captured_output() as captured:
            print("in")
            sys.stdout.close()
        print("after")
    """
    result = _python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "after\n", "")


def test_foreign_code_that_replaces_stdout():
    code = """
        import io
        with captured_output() as captured:
            sys.stdout = io.StringIO()
        print("after")
    """
    assert _python(code).stdout == "after\n"


def test_a_child_that_lives_on_does_not_hold_us_up():
    code = """
        import subprocess, time
        start = time.monotonic()
        with captured_output() as captured:
            child = subprocess.Popen(["sh", "-c", "echo x; exec sleep 20"])
            while not captured.total_bytes:
                time.sleep(0.01)
        assert time.monotonic() - start < 10
        child.kill(); child.wait()
        print("after")
    """
    assert _python(code).stdout == "after\n"


def test_many_open_files():
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
        null = os.open(os.devnull, os.O_RDONLY)
        held = [os.dup(null) for _ in range(1500)]
        with captured_output() as captured:
            print("in")
        assert captured.head == "in\\n"
        print("after")
    """
    assert _python(code).stdout == "after\n"
