"""Implicit least squares over all items, solved in closed form one block of vectors at a time.

A user is p_u = z_u + x_u A and an item q_i = z_i + x_i B: a vector of its own, as that of an id,
and the sum of its features' vectors. Over the positives S with weights c_ui, all users and all
items,

    L = sum_S c_ui (1 - <p_u, q_i>)^2 + a sum_u sum_i <p_u, q_i>^2
        + l sum_u (n_u + a |items|) |z_u|^2 + m |A|^2
        + l sum_i (n_i + a |users|) |z_i|^2 + m' |B|^2

where n are sums of weights of positives, and m and m' the means of what z_u and z_i pay: a
feature's vector pays as that of one user or item. Each step minimizes L over one block with all
others fixed: the p_u, each on its own; A; the q_i; B. The sum over all pairs is <P'P, Q'Q>, so that
a sweep costs at most k^2 operations a positive, and k^3 a user and an item.

Sources: Y. Hu, Y. Koren, C. Volinsky, Collaborative filtering for implicit feedback datasets, ICDM
2008; S. Rendle et al., Revisiting the performance of iALS on item recommendation benchmarks, RecSys
2022 (the penalties); I. Bayer et al., A generic coordinate descent framework for learning from
implicit feedback, WWW 2017 (features).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from towers.start import fit_features

Floats = NDArray[Any]
"""float32 or float64; all arrays of one problem have the same."""

CELLS = 2**22
"""Numbers that a batch of rows gathers at most, beyond those of one row."""
STRETCH = 65_536
SETTLED = 1e-3
"""The share of the objective below whose fall in a sweep no further one is made."""


class Content(NamedTuple):
    """The features of users or of items, without their ids."""

    bags: sparse.csr_array
    """[n, m]."""
    dense: Floats
    """Further columns, [n, l]."""

    def pooled(self, v: Floats) -> Floats:
        """The sums of the features' vectors v [m + l, k], [n, k]."""
        m = self.bags.shape[1]
        sums: Floats = self.bags @ v[:m] + self.dense @ v[m:]
        return sums

    def transposed(self, t: Floats) -> Floats:
        """X't of t [n, k], [m + l, k]."""
        return np.concatenate([self.bags.T @ t, self.dense.T @ t])

    def scaled(self, rows: Floats) -> Content:
        """The features times a factor for each row [n]."""
        factors = np.repeat(rows, np.diff(self.bags.indptr))
        parts = (self.bags.data * factors, self.bags.indices, self.bags.indptr)
        bags = sparse.csr_array(parts, shape=self.bags.shape)
        return Content(bags, self.dense * rows[:, np.newaxis])


class Weights(NamedTuple):
    """What counts how much."""

    unobserved: float
    """a: the weight of each pair of a user and an item, observed or not."""
    penalty: float
    """l: what a squared entry pays for each unit of weight that its row has."""


@dataclass(frozen=True, eq=False)
class Half:
    """The users or the items: their positives, their features, and their vectors."""

    positives: sparse.csr_array
    """c [n, n of the others]."""
    content: Content
    vectors: Floats
    """p or q, [n, k]; what has no positive has the sum of its features and is in no sum."""
    learned: Floats
    """A or B, [m + l, k]."""
    penalties: Floats
    """What a squared entry of z pays, [n]."""

    @classmethod
    def start(
        cls, positives: sparse.csr_array, content: Content, vectors: Floats, weights: Weights
    ) -> Half:
        """Features begin at zero, and so does what has no positive."""
        ones = np.ones(positives.shape[1], dtype=vectors.dtype)
        n_others = len(np.unique(positives.indices))
        penalties = weights.penalty * (positives @ ones + weights.unobserved * n_others)
        n_features = content.bags.shape[1] + content.dense.shape[1]
        learned = np.zeros((n_features, vectors.shape[1]), dtype=vectors.dtype)
        there = np.diff(positives.indptr)[:, np.newaxis] > 0
        vectors = np.where(there, vectors, vectors.dtype.type(0.0))
        return cls(positives, content, vectors, learned, penalties.astype(vectors.dtype))

    @property
    def is_there(self) -> NDArray[np.bool_]:
        """Who has a positive, [n]."""
        return np.diff(self.positives.indptr) > 0

    @property
    def feature_penalty(self) -> float:
        """What a squared entry of a feature's vector pays."""
        return float(self.penalties[self.is_there].mean()) if self.is_there.any() else 1.0

    def gram(self) -> NDArray[np.float64]:
        """The sum of v v' over those who have a positive, [k, k]."""
        k = self.vectors.shape[1]
        total = np.zeros((k, k))
        for start in range(0, len(self.vectors), STRETCH):
            some = slice(start, start + STRETCH)
            v = self.vectors[some][self.is_there[some]].astype(np.float64)
            total += v.T @ v
        return total

    def paid(self) -> float:
        """The penalties of the vectors."""
        own = np.square(self.vectors - self.content.pooled(self.learned)).sum(axis=1)
        features = self.feature_penalty * np.square(self.learned, dtype=np.float64).sum()
        return float((self.penalties * own)[self.is_there].sum(dtype=np.float64) + features)

    def solved(self, other: Half, weights: Weights) -> Half:
        """With the vectors that are best beside those of the others, and then the features'."""
        prior = self.content.pooled(self.learned)
        vectors = solve_rows(
            self.positives,
            other.vectors,
            prior=prior,
            gram=other.gram(),
            unobserved=weights.unobserved,
            penalties=self.penalties,
        )
        vectors[~self.is_there] = 0.0
        found = replace(self, vectors=vectors)
        return found._with_features() if len(self.learned) else found

    def _with_features(self) -> Half:
        """With the features' vectors that leave least to z: ridge regression, from where they are.

        A step of conjugate gradients never raises the sum of squares that it starts from.
        """
        penalty = self.feature_penalty
        factors = np.sqrt(np.where(self.is_there, self.penalties, 0.0) / penalty)
        x = self.content.scaled(factors.astype(self.vectors.dtype))
        rest = (self.vectors - self.content.pooled(self.learned)) * factors[:, np.newaxis]
        moments = x.transposed(rest.astype(self.vectors.dtype)) - self.learned
        learned = self.learned + fit_features(x.bags, moments, dense=x.dense)
        vectors = np.where(self.is_there[:, np.newaxis], self.vectors, self.content.pooled(learned))
        return replace(self, learned=learned, vectors=vectors)


def sweeps(users: Half, items: Half, weights: Weights, *, most: int) -> Iterator[Solved]:
    """Solve the users and then the items, over and over, until little is won by it.

    Args:
        users: their vectors do not matter.
        items: the vectors to begin with.
        weights: what counts how much.
        most: how many sweeps there are at most.

    Yields:
        Both after each sweep, and L, which never rises.
    """
    before = np.inf
    for _ in range(most):
        users = users.solved(items, weights)
        items = items.solved(users, weights)
        now = objective(users, items, weights)
        yield Solved(users, items, now)
        if before - now < SETTLED * now:
            break
        before = now


class Solved(NamedTuple):
    """What a sweep has found."""

    users: Half
    items: Half
    objective: float


def objective(users: Half, items: Half, weights: Weights) -> float:
    """L, in float64."""
    indptr, total = users.positives.indptr, 0.0
    for start in range(0, users.positives.nnz, STRETCH):
        some = slice(start, min(start + STRETCH, users.positives.nnz))
        rows = np.searchsorted(indptr, np.arange(some.start, some.stop), side="right") - 1
        q = items.vectors[users.positives.indices[some]]
        scores = np.einsum("nk,nk->n", users.vectors[rows], q)
        errors = users.positives.data[some] * np.square(1.0 - scores)
        total += float(errors.sum(dtype=np.float64))
    everywhere = weights.unobserved * float(np.sum(users.gram() * items.gram()))
    return total + everywhere + users.paid() + items.paid()


def solve_rows(
    positives: sparse.csr_array,
    others: Floats,
    *,
    prior: Floats,
    gram: NDArray[np.float64],
    unobserved: float,
    penalties: Floats,
) -> Floats:
    """Minimize L over each row's vector by itself, [n, k]; without positives, it is the prior.

    v = m + (a G + Q'CQ + l I)^-1 (Q'C (1 - Q m) - a G m), where m is the prior of the row, and Q
    and C have its positives alone. In the axes of G, whose matrix is diagonal there, a row with
    fewer positives than k solves for these: the inverse of D + F'F is D^-1 - D^-1 F' (I + F D^-1
    F')^-1 F D^-1. Rows of nearly the same length are solved together.

    Args:
        positives: c, [n, m].
        others: Q, [m, k].
        prior: where each vector would be without interactions, [n, k].
        gram: G, the sum of q q' over all others, [k, k].
        unobserved: a.
        penalties: l of each row, [n]; positive.
    """
    k, sizes = others.shape[1], np.diff(positives.indptr)
    squares, axes = np.linalg.eigh(gram)
    turn = axes.astype(others.dtype)
    diagonal = (unobserved * np.maximum(squares, 0.0)).astype(others.dtype)
    turned = np.concatenate([others @ turn, np.zeros((1, k), dtype=others.dtype)])
    data, columns = np.append(positives.data, 0.0), np.append(positives.indices, len(others))
    means = prior @ turn
    found = means.copy()
    for rows in _batches(sizes, k=k):
        width, places = int(sizes[rows].max()), positives.indptr[rows][:, np.newaxis]
        entry = places + np.arange(width)
        entry = np.where(np.arange(width) < sizes[rows][:, np.newaxis], entry, len(data) - 1)
        root = np.sqrt(data[entry]).astype(others.dtype)
        f = turned[columns[entry]] * root[:, :, np.newaxis]
        m = means[rows]
        left = root - _times(f, m)
        wanted = _times(f.transpose(0, 2, 1), left) - diagonal * m
        found[rows] = m + _solve(f, wanted, diagonal + penalties[rows, np.newaxis])
    return np.asarray(found @ turn.T)


def _solve(f: Floats, wanted: Floats, diagonal: Floats) -> Floats:
    """(D + F'F)^-1 b of a batch: f [b, w, k], wanted [b, k], diagonal [b, k]."""
    transposed, (_, width, k) = f.transpose(0, 2, 1), f.shape
    if width < k:
        scaled = f / diagonal[:, np.newaxis, :]
        inner = scaled @ transposed + np.eye(width, dtype=f.dtype)
        first = wanted / diagonal
        inside = np.linalg.solve(inner, _times(f, first)[:, :, np.newaxis])[:, :, 0]
        return np.asarray(first - _times(scaled.transpose(0, 2, 1), inside))
    whole = transposed @ f
    whole[:, np.arange(k), np.arange(k)] += diagonal
    return np.asarray(np.linalg.solve(whole, wanted[:, :, np.newaxis])[:, :, 0])


def _times(f: Floats, v: Floats) -> Floats:
    """The products of a batch of matrices [b, n, m] with vectors [b, m], [b, n]."""
    product: Floats = (f @ v[:, :, np.newaxis])[:, :, 0]
    return product


def _batches(sizes: NDArray[np.integer[Any]], *, k: int) -> Iterator[NDArray[np.int64]]:
    """Rows of nearly the same size together, as many as `CELLS` allow; none without positives."""
    order = np.argsort(sizes, kind="stable")
    order = order[np.count_nonzero(sizes == 0) :]
    end = len(order)
    while end:
        n = max(1, CELLS // (k * int(sizes[order[end - 1]])))
        yield order[max(end - n, 0) : end]
        end = max(end - n, 0)
