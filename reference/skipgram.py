"""Skip-gram with negative sampling on real text: the plan, the loss, the exact trajectory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embconform.reference.bounds import summation
from embconform.reference.clause import Profile
from embconform.reference.text import Corpus

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

STEPS: Final = 50
BATCH: Final = 128
WIDTH: Final = 64
OFFSETS: Final = (-2, -1, 1, 2)
"""Where the contexts stand, relative to the centre."""
NEGATIVES: Final = 5
"""Negative samples for each context, as word2vec's -negative 5."""
RATE: Final = 0.125
"""Learning rate of the mean loss over a batch; a binary fraction, so float32 holds it exactly."""
MEAN, DEVIATION = 0.1, 0.1
"""Of the initial values. Around 0 the loss has a saddle, which takes hundreds of steps to leave and
multiplies rounding errors meanwhile; a mean of 0.1 starts beside it. One value in six is negative.
"""

WIDE: Final = 2.0**-44
"""What float64 rounds away: 512 unit roundoffs, more than gamma(500), both sides together."""
UNIT: Final = 2.0**-24 + WIDE
"""Unit roundoff of float32, and the oracle's own rounding on top."""
TINY: Final = float(np.finfo(np.float32).tiny)
"""What one operation loses at most by underflow, flushed to zero or not."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One training run as plain data, the same for every backend and profile.

    Attributes
    ----------
    words : tuple of str
        The word of each table row.
    tables : tuple of two ndarray of float32, shape (V, D)
        Initial input table (looked up for centres) and output table (for contexts and negatives).
        Row 0 is as non-zero as the others, so that masking shows.
    centres : ndarray of int64, shape (steps, B)
    contexts : ndarray of int64, shape (steps, B, C)
        0 where the sentence ends before.
    negatives : ndarray of int64, shape (steps, B, N)
    rate : float
        Learning rate; float32 holds it exactly.
    padding : bool
        Whether row 0 is padding, given to the backend as padding_idx=0. Without it no id is 0.
    seed : int
    """

    words: tuple[str, ...]
    tables: tuple[NDArray[np.float32], NDArray[np.float32]]
    centres: Ids
    contexts: Ids
    negatives: Ids
    rate: float
    padding: bool
    seed: int

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.centres)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The loss of one batch and its gradient with respect to the looked-up vectors.

    Attributes
    ----------
    loss : float
    centres : ndarray of float32, shape (B, D)
    contexts : ndarray of float32, shape (B, C, D)
    negatives : ndarray of float32, shape (B, N, D)
    """

    loss: float
    centres: NDArray[np.float32]
    contexts: NDArray[np.float32]
    negatives: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """What exact arithmetic makes of a plan, and how far float32 may stray from it.

    Attributes
    ----------
    tables : tuple of two ndarray of float64, shape (V, D)
        After the last step.
    bounds : tuple of two ndarray of float64, shape (V,)
        Largest 2-norm of the error of each row; 0 for a row that no batch names.
    losses, loss_bounds : ndarray of float64, shape (steps,)
    """

    tables: tuple[Floats, Floats]
    bounds: tuple[Floats, Floats]
    losses: Floats
    loss_bounds: Floats


def make_plan(
    corpus: Corpus, seed: int, *, padding: bool = True, steps: int = STEPS, batch: int = BATCH
) -> Plan:
    """Draw batches from a text, with the frequencies that its words really have.

    Centres are distinct places of the text, in drawn order. Contexts are the words up to two
    places away, padding beyond either end of the sentence. Negatives are drawn by the counts to
    the power 0.75, and one that happens to be a context stays.

    Parameters
    ----------
    corpus : Corpus
    seed : int
    padding : bool
        False for backends without padding_idx: only places are taken whose centre and contexts
        are all words.
    steps, batch : int
        Number of steps, and of centres in each.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If the text has fewer than ``steps * batch`` places to draw from.

    References
    ----------
    Mikolov et al., Distributed Representations of Words and Phrases and their Compositionality,
    NeurIPS 2013, eq. 4 and §2.2.
    """
    rng = np.random.default_rng(seed)
    contexts = _contexts(corpus)
    places = np.arange(len(corpus.ids))
    if not padding:
        places = places[(corpus.ids > 0) & (contexts > 0).all(axis=1)]
    if len(places) < steps * batch:
        raise ValueError(f"{len(places)} places in the text, {steps} x {batch} needed")
    drawn = rng.permutation(places)[: steps * batch].reshape(steps, batch)
    odds = corpus.counts.astype(np.float64) ** 0.75
    odds[0] = 0
    total = NEGATIVES * len(OFFSETS)
    negatives = rng.choice(len(odds), size=(steps, batch, total), p=odds / odds.sum())
    tables = rng.normal(MEAN, DEVIATION, (2, len(corpus.words), WIDTH)).astype(np.float32)
    return Plan(
        words=corpus.words,
        tables=(tables[0], tables[1]),
        centres=corpus.ids[drawn],
        contexts=contexts[drawn],
        negatives=negatives.astype(np.int64),
        rate=RATE,
        padding=padding,
        seed=seed,
    )


def _contexts(corpus: Corpus) -> Ids:
    """Contexts of every place of a text, shape (tokens, C); 0 outside of the sentence."""
    last = len(corpus.ids) - 1
    places = np.arange(last + 1)[:, np.newaxis] + np.array(OFFSETS)
    inside = np.clip(places, 0, last)
    same = corpus.sentences[inside] == corpus.sentences[:, np.newaxis]
    return np.where(same & (inside == places), corpus.ids[inside], 0)


@dataclass(frozen=True, slots=True)
class _Gradient:
    """Loss and gradients in float64: factor (B, T) is d loss / d score, times B."""

    loss: float
    factor: Floats
    centres: Floats
    targets: Floats


def _gradient(centres: Floats, targets: Floats, contexts: int) -> _Gradient:
    """Mean over B of -sum log s(u.v) over the first targets and -sum log s(-u.v) over the rest.

    Parameters are the vectors u, shape (B, D), and v, shape (B, T, D), and the number of contexts
    among the T targets; log s is evaluated as -logaddexp, s through tanh: neither overflows.
    """
    sign = np.where(np.arange(targets.shape[1]) < contexts, 1.0, -1.0)
    margin = sign * np.matmul(targets, centres[:, :, np.newaxis])[..., 0]
    factor = -sign * (0.5 - 0.5 * np.tanh(margin / 2))
    batch = len(centres)
    return _Gradient(
        loss=float(np.logaddexp(0, -margin).sum() / batch),
        factor=factor,
        centres=np.matmul(factor[:, np.newaxis], targets)[:, 0] / batch,
        targets=(factor / batch)[..., np.newaxis] * centres[:, np.newaxis],
    )


def upstream(
    centres: NDArray[np.floating], contexts: NDArray[np.floating], negatives: NDArray[np.floating]
) -> Upstream:
    """Compute loss and upstream gradient from the vectors that a backend looked up.

    The loss of a centre u with contexts v and negatives n is -sum log s(u.v) - sum log s(-u.n), s
    the logistic function; a batch has the mean. Padding is not masked: whether the backend masks
    it has to show. Computed in float64, gradients rounded once to float32. Values that are not
    finite, or overflow, pass through in silence.

    Parameters
    ----------
    centres : ndarray, shape (B, D)
    contexts : ndarray, shape (B, C, D)
    negatives : ndarray, shape (B, N, D)

    Returns
    -------
    Upstream
    """
    with np.errstate(all="ignore"):
        targets = np.concatenate([contexts, negatives], axis=1, dtype=np.float64)
        count = contexts.shape[1]
        found = _gradient(centres.astype(np.float64), targets, count)
        rounded = found.targets.astype(np.float32)
        by_centre = found.centres.astype(np.float32)
    return Upstream(found.loss, by_centre, rounded[:, :count], rounded[:, count:])


@dataclass(slots=True)
class _Table:
    """A table in float64, with a bound on the error of each row's float32 counterpart."""

    values: Floats
    padding: bool
    masked: bool
    bound: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.bound = np.zeros(len(self.values))

    def look_up(self, ids: Ids) -> tuple[Floats, Floats, Floats]:
        """Vectors, their norms and their error bounds; zeros at masked padding."""
        norms = _norm(self.values)
        if not self.masked:
            return self.values[ids], norms[ids], self.bound[ids]
        vectors = self.values[ids] * (ids != 0)[..., np.newaxis]
        return vectors, norms[ids] * (ids != 0), self.bound[ids]

    def step(self, ids: Ids, gradients: Floats, errors: Floats, rate: float) -> None:
        """Subtract rate times the summed gradients; see :func:`oracle` for what it does to errors.

        Parameters are ids (n,), upstream gradients (n, D) and their error bounds (n,).
        """
        if self.padding:
            keep = ids != 0
            ids, gradients, errors = ids[keep], gradients[keep], errors[keep]
        rows, width = self.values.shape
        flush = TINY * np.sqrt(width)
        terms = (_norm(gradients) + errors) * (1 + UNIT)
        counts = _totals(ids, np.ones_like(terms), rows)
        error = _totals(ids, errors + UNIT * terms + 2 * flush, rows)
        error += summation(counts, _totals(ids, terms, rows), UNIT)
        places = ids[:, np.newaxis] * width + np.arange(width)
        total = _totals(places.ravel(), gradients.ravel(), rows * width).reshape(rows, width)
        self.values -= rate * total
        bound = self.bound + rate * (error + UNIT * (_norm(total) + error)) + 2 * flush
        bound += UNIT * (_norm(self.values) + bound)
        self.bound = np.where(counts > 0, bound, self.bound)


def _totals(ids: Ids, values: Floats, rows: int) -> Floats:
    """Sum of the values of each id."""
    return np.asarray(np.bincount(ids, values, rows), np.float64)


def _norm(vectors: Floats) -> Floats:
    """2-norm along the last axis."""
    return np.asarray(np.sqrt(np.einsum("...d,...d->...", vectors, vectors)))


def _times(factor: Floats, slack: Floats, norm: Floats, error: Floats) -> Floats:
    """Bound the error of g v where g is off by `slack` and v by `error`, float64 rounding added."""
    reach = norm + error
    return factor * error + slack * reach + WIDE * (factor + slack) * reach


def _advance(plan: Plan, at: int, inputs: _Table, outputs: _Table) -> tuple[float, float]:
    """Take one step in both tables; return the loss and its error bound."""
    contexts = plan.contexts.shape[2]
    centres = plan.centres[at]
    targets = np.concatenate([plan.contexts[at], plan.negatives[at]], axis=1)
    batch, width = targets.shape
    u, u_norm, u_error = inputs.look_up(centres)
    v, v_norm, v_error = outputs.look_up(targets)
    exact = _gradient(u, v, contexts)
    u_norm, u_error = u_norm[:, np.newaxis], u_error[:, np.newaxis]
    score = u_norm * v_error + u_error * v_norm + u_error * v_error
    score += WIDE * (u_norm + u_error) * (v_norm + v_error)
    factor = np.abs(exact.factor)
    slack = score / 4 + WIDE
    by_centre = _times(factor, slack, v_norm, v_error).sum(axis=1) / batch
    by_target = _times(factor, slack, u_norm, u_error) / batch
    loss_error = float((factor * score + score**2 / 8).sum() / batch + WIDE * (exact.loss + width))
    inputs.step(centres, exact.centres, by_centre, plan.rate)
    by_row = exact.targets.reshape(batch * width, -1)
    outputs.step(targets.ravel(), by_row, by_target.ravel(), plan.rate)
    return exact.loss, loss_error


def oracle(plan: Plan, profile: Profile) -> Trajectory:
    r"""Compute a plan's tables in float64, with a running bound on the error of any right backend.

    A right backend looks vectors up bit by bit (zeros for padding in the textbook profile), sums
    the upstream gradients of equal ids in float32 or better in any order, drops those of padding,
    and SGD subtracts rate times the sum. All norms below are 2-norms of rows or vectors; u is the
    unit roundoff of float32 and w that of float64 times 512 (:data:`WIDE`), which covers the
    float64 arithmetic of :func:`upstream` and of this function. Let e(r) bound the error of row r
    so far: 0 at first, for the initial tables are float32. One step adds, by first writing each
    computed quantity as exact plus error:

    1. The score s = u.v of a centre with error e_u and a target with error e_v is off by at most
       d_s = \|u\| e_v + \|v\| e_u + e_u e_v + w (\|u\| + e_u)(\|v\| + e_v)  (Cauchy-Schwarz).
    2. The factor g = d loss / d s is plus or minus a logistic function, whose slope is at most 1/4:
       d_g = d_s / 4 + w. The loss is off by at most sum(\|g\| d_s + d_s^2 / 8) / B.
    3. The term g v of the centre's gradient is off by at most
       \|g\| e_v + d_g (\|v\| + e_v) + w (\|g\| + d_g)(\|v\| + e_v); likewise g u of the target's.
       Sum, divide by B: the gradient a of one lookup is off by d_a, and by u (\|a\| + d_a) more
       when it is rounded to float32.
    4. The n gradients of one row, summed in any order, lose at most (n - 1) u sum \|a_i\|
       (:func:`embconform.reference.bounds.summation`), a_i as rounded. Together with the sum of
       the errors of 3 this is d_G, the error of the row's gradient G.
    5. fl(x - fl(rate G)): e <- (e + rate d_G + u rate (\|G\| + d_G))(1 + u) + u \|x_new\|. A fused
       multiply-add has one rounding fewer. A row without gradient keeps its bits and its e.

    Underflow adds the smallest normal float32 per operation, so that flushing to zero passes too.
    The bounds are worst cases that add up without cancelling; what keeps them from growing
    quickly is a small ``rate`` times the share of the batch that the most frequent word has.

    Parameters
    ----------
    plan : Plan
    profile : Profile
        What padding reads: the stored row (torch) or zeros (textbook).

    Returns
    -------
    Trajectory

    References
    ----------
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.3 (running error
    analysis), §4.2 (summation).
    """
    masked = plan.padding and profile is Profile.TEXTBOOK
    inputs, outputs = (
        _Table(table.astype(np.float64), plan.padding, masked) for table in plan.tables
    )
    steps = [_advance(plan, at, inputs, outputs) for at in range(plan.steps)]
    losses, loss_bounds = np.array(steps, np.float64).reshape(-1, 2).T
    return Trajectory(
        (inputs.values, outputs.values), (inputs.bound, outputs.bound), losses, loss_bounds
    )
