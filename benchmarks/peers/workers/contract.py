"""What a worker reads, what it writes, and what of it is timed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A training split, and the settings to train with."""

    train: sparse.csr_matrix
    """[n_users, n_items] float32; 1 where the user has the item."""
    user_features: sparse.csr_matrix
    """[n_users, n_user_features] float32, without the ids; may have no columns."""
    item_features: sparse.csr_matrix
    """[n_items, n_item_features] float32, likewise."""
    settings: Mapping[str, Any]
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """Vectors whose inner product is the score; a bias is one more dimension."""

    users: NDArray[np.float32]
    """[n_users, dim]; all zeros for a user that the tool cannot rank items for."""
    items: NDArray[np.float32]
    """[n_items, dim]."""
    graph: sparse.csr_matrix | None = None
    """G [n_users, n_items]: R G'G is added to the scores, where R are the interactions."""


def work(train: Callable[[Job], Factors], *, packages: tuple[str, ...]) -> None:
    """Train on the job in the folder that the command line names, and leave the outcome there.

    Written are `users.npy`, `items.npy`, `graph.npz` where there is one, and `training.json`:
    `seconds` and `cpu_seconds` of `train` alone, and the versions of `packages`, distributions of
    this environment.
    """
    folder = Path(sys.argv[1])
    job = read_job(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    factors = train(job)
    training = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "versions": {name: metadata.version(name) for name in packages},
    }
    np.save(folder / "users.npy", np.asarray(factors.users, dtype=np.float32))
    np.save(folder / "items.npy", np.asarray(factors.items, dtype=np.float32))
    if factors.graph is not None:
        sparse.save_npz(folder / "graph.npz", factors.graph)
    (folder / "training.json").write_text(json.dumps(training), encoding="utf-8")


def read_job(folder: Path) -> Job:
    """Read `job.json` in `folder`, and the split that it names."""
    raw = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    split = Path(raw["split"])
    return Job(
        train=_read_matrix(split / "train.npz"),
        user_features=_read_matrix(split / "user_features.npz"),
        item_features=_read_matrix(split / "item_features.npz"),
        settings=raw["settings"],
        seed=raw["seed"],
    )


def with_ids(features: sparse.csr_matrix, *, seen: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Put an id feature of each row that training has seen before its other features.

    What training has not seen is known by its other features alone; its id would be noise.
    """
    ids = sparse.diags(seen.astype(np.float32), format="csr")
    return sparse.csr_matrix(sparse.hstack([ids, features]), dtype=np.float32)


def _read_matrix(path: Path) -> sparse.csr_matrix:
    """Read a sparse matrix in the form that all peers take: not an array, rows in int32."""
    stored = sparse.csr_matrix(sparse.load_npz(path))
    parts = (stored.data, stored.indices.astype(np.int32), stored.indptr.astype(np.int32))
    return sparse.csr_matrix(parts, shape=stored.shape, dtype=np.float32)
