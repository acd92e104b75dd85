"""Solve the vectors of users and items by implicit least squares over all items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import all_blocks
from pipelines.data.dataset import Dataset
from pipelines.progress import Reporter
from towers.errors import ConfigError
from towers.features.schema import Side
from towers.least_squares import Content, Half, Solved, Weights, sweeps

MOST = 2**24
"""Interactions that are solved at most; of more, those of a random part of the users."""
TIMES = 20.0
"""What all pairs count together, in multiples of the positives, where nothing is set."""

Floats = NDArray[np.float32]


class Placed(NamedTuple):
    """What the features of one side are to have."""

    rows: NDArray[np.int64]
    """Rows of the feature table, [n]."""
    vectors: Floats
    """[n, k]."""


def solve_for_histories(
    dataset: Dataset, config: RunConfig, *, start: Floats, reporter: Reporter | None = None
) -> Floats:
    """The items' vectors whose inner products are the scores of users known by a history, [n, k].

    A user who chose the items I has (a G + Q_I' Q_I + l I)^-1 sum_I q_i, see `solve_rows`. With the
    mean over the users in place of Q_I' Q_I, it is A sum_I q_i with one positive matrix A. Then the
    score of an item j is a sum of <A^1/2 q_i, A^1/2 q_j> over I: that of a history that shares
    the vectors A^1/2 q of the items. Root mean square 1.

    Args:
        dataset: the interactions, and the features of both sides.
        config: the settings.
        start: where items begin, [n_items, k].
        reporter: is told of each sweep.
    """
    solved, weights = _solve(dataset, config, start=start, reporter=reporter)
    users, items = solved.users, solved.items
    is_user, q = users.is_there, items.vectors.astype(np.float64)
    if not is_user.any():
        return start
    n_users = np.count_nonzero(is_user)
    shares = users.positives.T @ np.ones(len(is_user)) / n_users
    matrix = weights.unobserved * items.gram() + (q * shares[:, np.newaxis]).T @ q
    squares, axes = np.linalg.eigh(matrix + users.feature_penalty * np.eye(len(matrix)))
    vectors = q @ (axes / np.sqrt(squares)) @ axes.T
    return np.asarray(vectors / np.sqrt(np.mean(np.square(vectors))), dtype=np.float32)


def solve_both(
    dataset: Dataset, config: RunConfig, *, start: Floats, reporter: Reporter | None = None
) -> list[Placed]:
    """What features and ids of both sides are to have, whose sums are the solution itself.

    For users without a history. A user or an item whose id has no row has its features alone.

    Raises:
        ConfigError: there are more interactions than are solved at once.
    """
    if int(dataset.interactions.user_counts.sum()) > MOST:
        raise ConfigError(
            f'training.solver: expected at most {MOST:,} interactions with "als" where users have '
            f"no history, received {int(dataset.interactions.user_counts.sum()):,}; give users a "
            'history, or set solver = "sgd"'
        )
    solved, _ = _solve(dataset, config, start=start, reporter=reporter)
    halves: dict[Side, Half] = {"user": solved.users, "item": solved.items}
    placed = []
    for side, half in halves.items():
        ids, dense = dataset.id_rows(side), dataset.dense(side)
        known = (ids >= 0) & half.is_there
        own = half.vectors - half.content.pooled(half.learned)
        rows = np.concatenate([dataset.content_bags(side)[1], np.r_[dense.rows]])
        placed += [Placed(rows, half.learned), Placed(ids[known], own[known])]
    return placed


def _solve(
    dataset: Dataset, config: RunConfig, *, start: Floats, reporter: Reporter | None
) -> tuple[Solved, Weights]:
    """Solve users and items in turn."""
    reporter, settings = reporter or Reporter(), config.training.als
    users, positives = _positives(dataset)
    n_users, n_items = (np.count_nonzero(np.bincount(one)) for one in positives.nonzero())
    density = positives.nnz / max(float(n_users) * float(n_items), 1.0)
    weights = Weights(settings.unobserved or TIMES * density, settings.penalty)
    k = start.shape[1]
    nothing = np.zeros((len(users), k), dtype=np.float32)
    everyone = np.arange(positives.shape[1])
    of_users = Half.start(positives, _content(dataset, "user", users), nothing, weights)
    of_items = Half.start(
        positives.T.tocsr(),
        _content(dataset, "item", everyone),
        start / np.sqrt(np.float32(k)),
        weights,
    )
    solved = Solved(of_users, of_items, 0.0)
    found = sweeps(of_users, of_items, weights, most=settings.sweeps)
    with reporter.bar("least squares", settings.sweeps, unit="sweeps") as advance:
        for number, solved in enumerate(found, 1):
            advance(1)
            reporter.say(f"  sweep {number}: {solved.objective / positives.nnz:.5f} a positive")
    return solved, weights


def _positives(dataset: Dataset) -> tuple[NDArray[np.int64], sparse.csr_array]:
    """The rows of some users, of all if there is room, and their positives, [n, n_items]."""
    users, matrices, n_left = [], [], MOST
    for block in all_blocks(dataset.interactions):
        users.append(block.users)
        matrices.append(block.matrix)
        n_left -= block.matrix.nnz
        if n_left <= 0:
            break
    return np.concatenate(users), sparse.csr_array(sparse.vstack(matrices, format="csr"))


def _content(dataset: Dataset, side: Side, rows: NDArray[np.int64]) -> Content:
    """The features of some users or items."""
    bags, dense = dataset.content_bags(side)[0], dataset.dense(side).x
    return Content(sparse.csr_array(bags[rows]), dense[rows])
