from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from embconform.backends.backend import TargetError
from embconform.backends.deviations import Deviation, DeviationFileError, active, load

GOOD = """
[[deviation]]
clause = "padding.negative"
reason = "raises"
link = "docs/findings.md#1"
versions = {torch = ">=2.9,<2.14"}

[[deviation]]
clause = "lookup.empty"
reason = "raises"
link = "docs/findings.md#2"
"""


def _write(folder: Path, text: str | bytes) -> Path:
    path = folder / "known.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _row(**changes: str | None) -> str:
    keys = {"clause": '"padding.negative"', "reason": '"r"', "link": '"l"'} | changes
    lines = [f"{key} = {value}" for key, value in keys.items() if value is not None]
    return "\n".join(["[[deviation]]", *lines])


def _version(version: str):
    return lambda _name: version


def test_rows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("embconform.backends.deviations.registry", _Anything)
    rows = load(_write(tmp_path, GOOD))
    assert rows[0] == Deviation(
        "padding.negative", "raises", "docs/findings.md#1", {"torch": ">=2.9,<2.14"}
    )
    assert rows[1].versions == {}


class _Anything(dict):
    def __contains__(self, key):
        return True


@pytest.mark.parametrize("text", ["", "# nothing declared\n"])
def test_an_empty_file_declares_nothing(tmp_path, text):
    assert load(_write(tmp_path, text)) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deviation = [", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        ("[[deviations]]", "did you mean 'deviation'?"),
        ("[deviation]", "rows are [[deviation]] tables"),
        ("deviation = 3", "rows are [[deviation]] tables"),
        ("deviation = [3]", "row 1: rows are [[deviation]] tables"),
        (_row(clause='"padding.negativ"'), "row 1: no clause 'padding.negativ', did you mean"),
        (_row() + "\n" + _row(clause='"zzz"'), "row 2: no clause 'zzz'"),
        (_row(clause=None), "row 1: 'clause' is missing"),
        (_row(reason=None), "'reason' is missing"),
        (_row(reason='" "'), "'reason' must be a text"),
        (_row(link="3"), "'link' must be a text"),
        (_row(reasn='"x"'), "unknown key 'reasn', did you mean 'reason'?"),
        (_row(versions='">=2"'), "'versions' must be a table"),
        (_row(versions='{torch = "around 2"}'), "'around 2' is no version specifier for 'torch'"),
        (_row(versions="{torch = 2}"), "2 is no version specifier"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, said):
    path = _write(tmp_path, text)
    with pytest.raises(DeviationFileError) as caught:
        load(path)
    message = str(caught.value)
    assert said in message
    assert str(path) in message
    assert "\n" not in message
    assert isinstance(caught.value, TargetError)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DeviationFileError, match=r"can't read deviations .*No such file"):
        load(tmp_path / "absent.toml")
    with pytest.raises(DeviationFileError, match=r"can't read deviations .*it is no file"):
        load(tmp_path)
    with pytest.raises(DeviationFileError, match="can't read deviations"):
        load(tmp_path / "a\0b")


@pytest.mark.parametrize(
    ("installed", "counts"),
    [
        ("2.13.0+cpu", True),
        ("2.13.0a0+git123", True),
        ("2.9.0", True),
        ("2.8.1+cu121", False),
        ("2.14.0.dev20260801+cpu", False),
        ("not a version", False),
    ],
)
def test_versions_decide_by_release(installed, counts):
    row = Deviation("padding.negative", "r", "l", {"torch": ">=2.9,<2.14"})
    assert (active([row], _version(installed)) == (row,)) is counts


def test_every_version_must_match():
    row = Deviation("padding.negative", "r", "l", {"torch": ">=2", "numpy": "<1"})
    assert active([row], {"torch": "2.13", "numpy": "2.4"}.__getitem__) == ()


def test_a_package_that_is_not_installed_does_not_match():
    def absent(name):
        raise PackageNotFoundError(name)

    assert active([Deviation("c", "r", "l", {"jax": ">=0"})], absent) == ()


def test_the_installed_torch_is_asked():
    row = Deviation("padding.negative", "r", "l", {"torch": ">=2.9"})
    assert active([row]) == (row,)


def test_a_built_in_name_stands_for_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = load(Path("eager"))
    assert "sparse.scalar-index" in {row.clause for row in rows}
    (tmp_path / "eager").write_text("", encoding="utf-8")
    assert load(Path("eager")) == ()
