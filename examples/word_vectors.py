"""Word vectors from Python's documentation: skip-gram with negative sampling, by any embedding.

    python examples/word_vectors.py [TARGET] [--steps N]

TARGET is what ``embconform validate`` takes: eager, textbook, my_package:my_embedding, ...
"""

from __future__ import annotations

from collections.abc import Iterator

import click
import numpy as np
import torch
from common import Table, make_table, neighbours, show_curve, train
from torch import Tensor
from torch.nn.functional import logsigmoid

from embconform.reference.text import Corpus, python_documentation

WIDTH = 48
BATCH = 256
NEGATIVES = 5
RATE = 0.15
OFFSETS = np.array([-3, -2, -1, 1, 2, 3])
WORDS = ("list", "string", "class", "raise", "integer", "import")


def pairs(corpus: Corpus, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """List centres and contexts, frequent words thinned out as word2vec does."""
    share = corpus.counts / corpus.counts.sum()
    keep = rng.random(len(corpus.ids)) < np.sqrt(1e-3 / np.maximum(share, 1e-9))[corpus.ids]
    kept = keep & (corpus.ids > 0)
    ids, sentences = corpus.ids[kept], corpus.sentences[kept]
    places = np.arange(len(ids))[:, np.newaxis] + OFFSETS
    inside = np.clip(places, 0, len(ids) - 1)
    same = (inside == places) & (sentences[inside] == sentences[:, np.newaxis])
    centres = np.broadcast_to(ids[:, np.newaxis], places.shape)
    return centres[same], ids[inside[same]]


def losses(corpus: Corpus, inputs: Table, outputs: Table, seed: int) -> Iterator[Tensor]:
    """Draw batches for ever; each loss is the mean of -log s(u.v) - sum log s(-u.n)."""
    rng = np.random.default_rng(seed)
    odds = corpus.counts**0.75
    odds[0] = 0
    centres, contexts = pairs(corpus, rng)
    while True:
        drawn = rng.integers(len(centres), size=BATCH)
        noise = rng.choice(len(odds), size=(BATCH, NEGATIVES), p=odds / odds.sum())
        centre = inputs(torch.tensor(centres[drawn]))
        near = (centre * outputs(torch.tensor(contexts[drawn]))).sum(-1)
        far = (centre.unsqueeze(1) * outputs(torch.tensor(noise))).sum(-1)
        yield -(logsigmoid(near) + logsigmoid(-far).sum(-1)).mean()


@click.command()
@click.argument("target", default="eager")
@click.option("--steps", default=1200, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
def main(target: str, steps: int, seed: int) -> None:
    """Train word vectors through TARGET and print the loss curve and nearest neighbours."""
    torch.manual_seed(seed)
    corpus = python_documentation()
    rows = len(corpus.words)
    click.echo(f"{target}: {len(corpus.ids):,} words of Python's documentation, {rows:,} rows")
    inputs, outputs = (make_table(target, rows, WIDTH, padding_idx=0) for _ in range(2))
    show_curve(train([inputs, outputs], losses(corpus, inputs, outputs, seed), steps, RATE))
    click.echo("\nnearest neighbours")
    for word in WORDS:
        if word in corpus.words:
            found = neighbours(inputs.weight, corpus.words.index(word), 6)
            near = ", ".join(f"{corpus.words[row]} {cosine:.2f}" for row, cosine in found)
            click.echo(f"  {word:<8} {near}")


if __name__ == "__main__":
    main()
