"""Markdown out of foreign text: what a target wrote stays text, wherever a forge shows it.

Names, paths, messages and reasons come from what is judged, and on a pull request from a stranger.
All of them stand in code, where no forge knows mentions, links, references, HTML or quick actions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from embconform.conformance.render.wording import clean, one_line

ROOM: Final = 60_000
"""GitHub refuses comments of more than 65,536 characters."""
_LONGEST: Final = 400
_OPEN: Final = re.compile(
    r"https?://[\w.:-]+(/[\w./~%+=&?;,@:-]*)?(#[\w./~%+=&?;,@:-]*)?", re.ASCII
)


def code(text: str) -> str:
    """Write inline code, whatever backticks it holds.

    Parameters
    ----------
    text : str
        Anything; a long one is cut.

    Returns
    -------
    str
        One line.
    """
    plain = shortened(one_line(text)) or " "
    fence = "`" * (_longest_ticks(plain) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def cell(text: str) -> str:
    """Write inline code that stays inside its cell of a table."""
    return code(text).replace("|", "\\|")


def block(text: str, language: str = "python") -> str:
    """Write a block of code, whatever fences it holds."""
    kept = clean(text).rstrip()
    fence = "`" * max(3, _longest_ticks(kept) + 1)
    return f"{fence}{language}\n{kept}\n{fence}"


def link(text: str) -> str:
    """Write where something stands: a link where it leads to the web, else inline code.

    A link to an issue of GitHub is no link, or each comment would be announced at that issue.
    """
    plain = one_line(text)
    if not _OPEN.fullmatch(plain) or (urlsplit(plain).hostname or "").endswith("github.com"):
        return code(plain)
    return f"[{code(plain)}](<{plain}>)"


def details(title: str, parts: Iterable[str]) -> str:
    """Fold parts away under a title of our own words; nothing for none."""
    body = "\n".join(filter(None, parts))
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>\n" if body else ""


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table of cells that are Markdown already; nothing for no rows."""
    columns = list(heads)
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines]) + "\n"


def fitted(parts: Iterable[str], room: int) -> str:
    """Join the parts that fit, the first ones first, and say where some did not.

    Parameters
    ----------
    parts : iterable of str
        Empty ones are left out.
    room : int
        Characters.

    Returns
    -------
    str
    """
    left_out = "*Some of the report is left out: it doesn't fit a comment.*\n"
    kept: list[str] = []
    used, short = len(left_out), False
    for part in filter(None, parts):
        if used + len(part) + 1 > room:
            short = True
            continue
        kept.append(part)
        used += len(part) + 1
    return "\n".join([*kept, *([left_out] * short)])


def shortened(text: str, most: int = _LONGEST) -> str:
    """Cut a text that is longer than a reader wants, and show that it is cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plain(text: str) -> str:
    """Keep the suite's own prose from being read as HTML or as Markdown's structure."""
    safe = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", safe)


def _longest_ticks(text: str) -> int:
    """Measure the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
