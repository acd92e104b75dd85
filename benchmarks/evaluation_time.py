"""How long a full evaluation takes, beside the matrix product that it cannot do without.

Run: .venv/bin/python -m benchmarks.evaluation_time
Run: .venv/bin/python -m benchmarks.evaluation_time --users 30000 --items 40981 --dim 256

Random vectors, histories and wanted items of the shape that is asked for. Three ways in turn, each
in blocks of 256 users: the product alone; the product and TensorFlow's top-k of it, without
anything masked; and `evaluate`, which masks what users have seen and measures every segment. No
item is cold, so that none are ranked among themselves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import sparse

from pipelines.config import EvaluationConfig
from pipelines.evaluation.evaluate import evaluate

BLOCK, K = 256, 20
SEEN, WANTED = 27, 7
"""How many items a user has seen, and wants: as in Gowalla."""

Floats = NDArray[np.float32]


def pairs(rng: np.random.Generator, shape: tuple[int, int], *, each: int) -> sparse.csr_array:
    """So many items of each user, at random."""
    users, items = np.repeat(np.arange(shape[0]), each), rng.integers(0, shape[1], shape[0] * each)
    found = sparse.coo_array((np.ones(len(users), np.float32), (users, items)), shape=shape)
    return sparse.csr_array(found)


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def blocks(users: Floats, items: Floats, then: Callable[[Floats], object]) -> None:
    """Score a block at a time."""
    for start in range(0, len(users), BLOCK):
        then(users[start : start + BLOCK] @ items.T)


def main() -> None:
    """Time the three, and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=8_192)
    parser.add_argument("--items", type=int, default=40_981)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rng, shape = np.random.default_rng(0), (given.users, given.items)
    users, items = (rng.standard_normal((n, given.dim + 1), dtype=np.float32) for n in shape)
    seen, wanted = pairs(rng, shape, each=SEEN), pairs(rng, shape, each=WANTED)
    config = EvaluationConfig(k=(K,), metric=f"recall@{K}")

    def measure() -> object:
        return evaluate(
            lambda rows: users[rows] @ items.T,
            train=seen,
            test=wanted,
            config=config,
            item_counts=np.full(given.items, SEEN),
        )

    ways: dict[str, Callable[[], object]] = {
        "the product": lambda: blocks(users, items, lambda scores: None),
        "the product and top-k": lambda: blocks(
            users, items, lambda scores: tf.math.top_k(scores, K)
        ),
        "evaluate": measure,
    }
    found = {name: [seconds(run) for _ in range(given.rounds)] for name, run in ways.items()}
    table = Table("", "seconds, median", "times the product and top-k")
    base = float(np.median(found["the product and top-k"]))
    for name, times in found.items():
        median = float(np.median(times))
        table.add_row(name, f"{median:.2f}", f"{median / base:.2f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
