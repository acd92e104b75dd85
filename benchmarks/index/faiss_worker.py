"""Measure faiss, in an environment that has it.

Run: python -m benchmarks.index.faiss_worker FOLDER HNSW

Inner products become distances by one more coordinate, sqrt(M^2 - |x|^2), with which all vectors
are as long as the longest. Source: Y. Bachrach et al., Speeding Up the Xbox Recommender System
Using a Euclidean Transformation for Inner-Product Spaces, RecSys 2014.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.index.measure import Built, K, Search, Task, Vectors, figures, growing, timed, tuned

LINKS, CONSTRUCTION = 32, 80
"""Links of a vertex, and the candidates that they are chosen from."""


def augmented(vectors: Vectors) -> Vectors:
    """Add a coordinate, so that all vectors are equally long."""
    squares = np.einsum("nd,nd->n", vectors, vectors)
    return np.c_[vectors, np.sqrt(np.maximum(squares.max() - squares, 0))].astype(np.float32)


def queries_of(vectors: Vectors) -> Vectors:
    """Add a zero."""
    return np.c_[vectors, np.zeros(len(vectors), np.float32)].astype(np.float32)


def inverted_lists(task: Task) -> tuple[Any, Iterator[tuple[str, Search]]]:
    """IVF-Flat, and its searches with more and more lists."""
    vectors = augmented(task.vectors)
    lists = 2 * math.isqrt(len(vectors))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(vectors.shape[1]), vectors.shape[1], lists)
    index.train(vectors)
    index.add(vectors)

    def searches() -> Iterator[tuple[str, Search]]:
        for probes in growing(1, lists):

            def search(queries: Vectors, probes: int = probes) -> Any:
                index.nprobe = probes
                return index.search(queries_of(queries), K)[1]

            yield f"{probes} of {lists} lists", search

    return index, searches()


def graph(task: Task) -> tuple[Any, Iterator[tuple[str, Search]]]:
    """HNSW, and its searches with more and more candidates."""
    vectors = augmented(task.vectors)
    index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS)
    index.hnsw.efConstruction = CONSTRUCTION
    index.add(vectors)

    def searches() -> Iterator[tuple[str, Search]]:
        for candidates in growing(K, 16 * K):

            def search(queries: Vectors, candidates: int = candidates) -> Any:
                index.hnsw.efSearch = candidates
                return index.search(queries_of(queries), K)[1]

            yield f"{candidates} candidates", search

    return index, searches()


INDEXES = {"IVF-Flat": inverted_lists, "HNSW": graph}


def main(folder: Path, names: Sequence[str]) -> None:
    """Measure some of the indexes on the task in `folder`."""
    task, rows = Task.load(folder), []
    for name in names:
        built: list[Built] = []
        with timed(built):
            index, searches = INDEXES[name](task)
        setting, search = tuned(task.to_tune_with(), searches)
        rows.append(figures(f"faiss {name}", setting, search, task.to_measure(), built=built[0]))
        del index, searches, search
    (folder / "faiss.json").write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
