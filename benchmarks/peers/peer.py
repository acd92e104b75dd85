"""Train a peer in its own environment, and measure what it learned with our metric code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.peers.processes import PeerError, run_measured
from benchmarks.peers.results import Cost, Result, describe_machine
from benchmarks.peers.rows import Peer
from benchmarks.peers.splits import DataSet, Split
from pipelines.evaluation.evaluate import Scorer

Vectors = NDArray[np.float32]


def run_peer(peer: Peer, data: DataSet, *, row: str, python: Path, folder: Path) -> Result:
    """Train `peer` with the interpreter `python`, and measure it on the test part.

    Args:
        peer: what to run, and its settings.
        data: what to train on.
        row: the peer's name.
        python: of the peer's environment.
        folder: emptied, and filled with the split, the vectors and a log.

    Raises:
        PeerError: training fails, or leaves vectors that fit neither each other nor the split.
    """
    shutil.rmtree(folder, ignore_errors=True)
    split = data.split
    split.write(folder / "split")
    settings = peer.settings_for(data.name)
    job = {"split": str(folder / "split"), "settings": settings, "seed": data.config.seed}
    (folder / "job.json").write_text(json.dumps(job, indent=2), encoding="utf-8")
    command = [str(python), "-m", peer.worker, str(folder)]
    usage = run_measured(command, folder=folder, variables=peer.variables)
    training: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    scorer, users = peer_scorer(folder, split)
    return Result(
        data=data.name,
        row=row,
        settings=settings,
        evaluation=split.evaluate(scorer).to_dict(),
        ranks_cold_users=bool(users[split.cold_users].any()),
        cost=Cost(
            training_s=training["seconds"],
            run_s=usage.run_s,
            cpu_s=usage.cpu_s,
            peak_gib=usage.peak_gib,
        ),
        versions=training["versions"],
        machine=describe_machine(),
    )


def peer_scorer(folder: Path, split: Split) -> tuple[Scorer, Vectors]:
    """Score as a worker's outcome in `folder` does; and the users' vectors [n_users, dim].

    Raises:
        PeerError: as `read_vectors`.
    """
    users, items = read_vectors(folder, shape=split.test.shape)
    by_vectors, path = factor_scorer(users, items=items), folder / "graph.npz"
    if not path.exists():
        return by_vectors, users
    graph, interactions = (
        sparse.csr_array(sparse.load_npz(one)) for one in (path, folder / "split" / "train.npz")
    )

    def score(user_rows: NDArray[np.int64]) -> Vectors:
        added: Vectors = (interactions[user_rows] @ graph.T @ graph).toarray()
        return by_vectors(user_rows) + added

    return score, users


def factor_scorer(users: Vectors, *, items: Vectors) -> Scorer:
    """Score by the inner product of users [n_users, dim] and items [n_items, dim].

    A user whose vector is zero is recommended nothing: all its scores are -inf.
    """
    unranked = np.flatnonzero(~np.any(users, axis=1))

    def score(user_rows: NDArray[np.int64]) -> Vectors:
        scores = users[user_rows] @ items.T
        scores[np.isin(user_rows, unranked)] = -np.inf
        return scores

    return score


def read_vectors(folder: Path, *, shape: tuple[int, int]) -> tuple[Vectors, Vectors]:
    """The users' and the items' vectors that a worker left in `folder`.

    Raises:
        PeerError: their shapes do not fit, or a number is not finite.
    """
    users, items = np.load(folder / "users.npy"), np.load(folder / "items.npy")
    if (len(users), len(items)) != shape or users.shape[1:] != items.shape[1:]:
        raise PeerError(
            f"{folder}: expected vectors of {shape[0]} users and {shape[1]} items of one length, "
            f"received {users.shape} and {items.shape}; mend the worker"
        )
    if not (np.isfinite(users).all() and np.isfinite(items).all()):
        raise PeerError(
            f"{folder}: expected finite vectors, received some that are not: training diverged; "
            "lower the learning rate in benchmarks/peers/rows.py"
        )
    return users, items
