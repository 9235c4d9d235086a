"""The code blocks of the pages that people read, and what is to be done with each.

Sybil and its like run Python blocks of a page; these pages also have files to save, shell commands
with exit codes, and what they print. markdown-it reads the pages; what it finds is told here.

A comment right before a block says what it is::

    <!-- not run: REASON -->        it can't run on a machine like this, and why
    <!-- slow: REASON -->           Python or shell that is run by the slow tests alone, and why
    <!-- file: NAME -->             save it under this name
    <!-- append to: NAME -->        add it at the end of a file of the repository
    <!-- last entry of: NAME -->    add it before the bracket that ends such a file
    <!-- exit: N -->                the shell must end with this code; 0 where nothing is said
    <!-- prints -->                 it is what the commands before it print, but for numbers
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

OURS = """
import torch

def my_embedding(input, weight):
    if input.dtype not in (torch.int32, torch.int64) or weight.dim() != 2:
        raise TypeError(f"ids are int32 or int64 and the table is a matrix, not {input.dtype}")
    for bad in input[(input < 0) | (input >= len(weight))]:
        raise IndexError(f"index {bad} is outside the table of {len(weight)} rows")
    return weight.index_select(0, input.reshape(-1)).reshape(*input.shape, weight.shape[1])
"""
"""What pages call the reader's own, where they don't show any."""
ROOT = Path(__file__).parents[2]
MARKS = ("not run", "slow", "file", "append to", "last entry of", "exit", "prints")
SHELL = "bash"


@dataclass(frozen=True)
class Block:
    """A code block: where it stands, its language and what the comment before it says."""

    page: str
    line: int
    language: str
    code: str
    marks: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """List the Markdown files that git has or would have, but for the generated specification."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return sorted(name for name in listed if name != "reference/SPEC.md")


def blocks(page: str, text: str | None = None) -> list[Block]:
    """List the code blocks of a page, fenced and indented ones, in its order."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    for token in MarkdownIt().parse(text or (ROOT / page).read_text(encoding="utf-8")):
        if token.type == "html_block":
            marks |= _marks(token.content)
        elif token.type in ("fence", "code_block"):
            line = token.map[0] + 1 if token.map else 0
            found.append(Block(page, line, token.info.strip(), token.content, marks))
            marks = {}
        elif token.nesting == 0:
            marks = {}
    return found


def _marks(comment: str) -> dict[str, str]:
    said = re.findall(r"<!-- ([a-z ]+?)(?:: (.*?))? -->", comment, re.DOTALL)
    return {key: value for key, value in said if key in MARKS}


def all_blocks() -> list[Block]:
    """List the code blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


def commands(code: str) -> Iterator[list[str]]:
    """Split shell code into the words of each command; redirections stay words."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("&|;"):
                yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


def without_numbers(text: str) -> list[str]:
    """Leave out how many cases there were and how long they took."""
    text = re.sub(r"[\d,]+ of [\d,]+ cases", "N of N cases", text)
    return re.sub(r"[\d,]+ cases in [\d.]+ s", "N cases in T s", text).strip().splitlines()
