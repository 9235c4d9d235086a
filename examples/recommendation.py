"""Recommend films by the similarity of user and film vectors, looked up by any embedding.

    python examples/recommendation.py [TARGET] [--steps N]

The data are made from a seeded latent-factor model: each film has a genre and a popularity, each
user likes two genres. One film of each user is held out; a good recommendation has it among the
first ten of the films that the user has not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np
import torch
from common import Table, make_table, neighbours, show_curve, train
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

GENRES = ("western", "horror", "comedy", "romance", "space", "war", "crime", "music")
USERS = 600
FILMS = 240
SEEN = 25
WIDTH = 16
BATCH = 512
RATE = 0.1
TOP = 10


@dataclass(frozen=True)
class Ratings:
    """Who has seen what."""

    genres: NDArray[np.int64]
    seen: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def name(self, film: int) -> str:
        """Call a film by its genre and number."""
        return f"{GENRES[self.genres[film]]} {film}"


def make_ratings(seed: int) -> Ratings:
    """Let each user see films by taste and popularity, without repetition."""
    rng = np.random.default_rng(seed)
    genres = rng.integers(len(GENRES), size=FILMS)
    popularity = rng.gumbel(0, 0.7, FILMS)
    taste = rng.normal(0, 0.3, (USERS, len(GENRES)))
    for user in taste:
        user[rng.choice(len(GENRES), 2, replace=False)] += 3.0
    # Gumbel noise and the largest sums: a draw without replacement, by softmax of the scores
    scores = taste[:, genres] + popularity + rng.gumbel(0, 1, (USERS, FILMS))
    chosen = np.argsort(-scores, axis=1)[:, : SEEN + 1]
    chosen = rng.permuted(chosen, axis=1)
    return Ratings(genres, chosen[:, :SEEN], chosen[:, SEEN])


def losses(
    ratings: Ratings, users: Table, films: Table, fame: Table, seed: int
) -> Iterator[Tensor]:
    """Draw batches for ever; a seen film should score above one drawn at random."""
    rng = np.random.default_rng(seed)
    while True:
        user = rng.integers(USERS, size=BATCH)
        liked = torch.tensor(ratings.seen[user, rng.integers(SEEN, size=BATCH)])
        other = torch.tensor(rng.integers(FILMS, size=BATCH))
        taste = (users(torch.tensor(user)) * (films(liked) - films(other))).sum(-1)
        yield -logsigmoid(taste + (fame(liked) - fame(other)).squeeze(-1)).mean()


def hit_rate(ratings: Ratings, scores: NDArray[np.floating]) -> float:
    """Share of the users whose held-out film is among the best TOP that they have not seen."""
    scores = scores.copy()
    np.put_along_axis(scores, ratings.seen, -np.inf, axis=1)
    best = np.argsort(-scores, axis=1)[:, :TOP]
    return float((best == ratings.held_out[:, np.newaxis]).any(axis=1).mean())


@click.command()
@click.argument("target", default="eager")
@click.option("--steps", default=500, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
def main(target: str, steps: int, seed: int) -> None:
    """Train user and film vectors through TARGET; print loss curve, hit rate and neighbours."""
    torch.manual_seed(seed)
    ratings = make_ratings(seed)
    users, films = make_table(target, USERS, WIDTH), make_table(target, FILMS, WIDTH)
    fame = make_table(target, FILMS, 1, scale=0)  # keeps popularity out of the vectors
    click.echo(f"{target}: {USERS} users, {FILMS} films, {ratings.seen.size:,} views")
    drawn = losses(ratings, users, films, fame, seed)
    show_curve(train([users, films, fame], drawn, steps, RATE))

    with torch.no_grad():
        scores = (users.weight @ films.weight.T + fame.weight.T).numpy()
    views = np.bincount(ratings.seen.reshape(-1), minlength=FILMS)
    popular = np.broadcast_to(views.astype(np.float64), scores.shape)
    click.echo(f"\nhit rate at {TOP}")
    click.echo(f"  by similarity  {hit_rate(ratings, scores):6.1%}")
    click.echo(f"  by popularity  {hit_rate(ratings, popular):6.1%}")

    click.echo("\nnearest neighbours")
    for genre in range(len(GENRES)):
        film = int(np.argmax(np.where(ratings.genres == genre, views, -1)))
        found = neighbours(films.weight, film, 5)
        near = ", ".join(f"{ratings.name(row)} {cosine:.2f}" for row, cosine in found)
        click.echo(f"  {ratings.name(film):<12} {near}")


if __name__ == "__main__":
    main()
