"""Real text: the words of the Python documentation that ships with Python."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

PADDING: Final = "<padding>"
LEAST: Final = 5
"""Occurrences that a word needs for a row of its own; word2vec's -min-count is 5 too."""

_TOKEN: Final = re.compile(r"([^\W\d]\w*)|[.!?:;](?=\s)|\n\s*\n")
"""A word, or what ends a sentence: a mark before white space, or an empty line."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A text as table rows.

    Attributes
    ----------
    words : tuple of str
        The word of each row, most frequent first; row 0 is :data:`PADDING`.
    ids : ndarray of int64, shape (tokens,)
        The text in order; 0 where a word is too rare for a row of its own.
    counts : ndarray of int64, shape (len(words),)
        Occurrences in `ids`, row 0 being the rare words together.
    sentences : ndarray of int64, shape (tokens,)
        Number of the sentence that each token stands in, never falling.
    """

    words: tuple[str, ...]
    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    sentences: NDArray[np.int64]


@cache
def python_documentation() -> Corpus:
    """Read ``pydoc_data.topics``: 465,000 characters, 64,000 words, some 1,350 rows in Python 3.11.

    Words are lower-cased. One with fewer than :data:`LEAST` occurrences keeps its place in the
    text and gets the padding row, so that ids of padding stand among the others and the distances
    between words stay true (word2vec, in contrast, closes the gap). No sentence goes on from one
    topic to the next.

    Returns
    -------
    Corpus
        Always the same object; its arrays are read-only.

    Raises
    ------
    ModuleNotFoundError
        If this Python was packaged without its ``pydoc_data``.
    """
    from pydoc_data.topics import topics

    return corpus("\n\n".join(topics.values()))


def corpus(text: str, least: int = LEAST) -> Corpus:
    """Give the words of a text their table rows.

    Parameters
    ----------
    text : str
    least : int
        Occurrences that a word needs for a row of its own.

    Returns
    -------
    Corpus
    """
    found = _TOKEN.findall(text.lower())
    frequencies = Counter(found)
    del frequencies[""]
    kept = [word for word, count in frequencies.most_common() if count >= least]
    rows = {word: row for row, word in enumerate(kept, start=1)}
    is_word = np.array([word != "" for word in found], bool)
    ids = np.array([rows.get(word, 0) for word in found], np.int64)[is_word]
    sentences = np.cumsum(~is_word)[is_word].astype(np.int64)
    counts = np.bincount(ids, minlength=len(kept) + 1).astype(np.int64)
    for array in (ids, counts, sentences):
        array.flags.writeable = False
    return Corpus((PADDING, *kept), ids, counts, sentences)
