"""Time explanations of a version's recommendations, beside the queries that find them.

Run: .venv/bin/python -m benchmarks.explain MODELS

Asks for the ten best items of users drawn at random, then why the first of each is there: by their
ids, by the raw features of both, and the sum alone, once the features are encoded. Prints medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.retrieval.explanation.active_features import known_features, raw_features
from serving.retrieval.explanation.terms import split_score
from serving.retrieval.parts import find_direction
from serving.retrieval.retriever import Retriever


def timed(function: Callable[[Any], Any], questions: Sequence[Any]) -> tuple[float, list[Any]]:
    """Call a function once a question, after one call that is not counted; the median in ms."""
    function(questions[0])
    answers, seconds = [], []
    for question in questions:
        began = time.perf_counter()
        answers.append(function(question))
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)) * 1000, answers


def measure(retriever: Retriever, *, n_users: int) -> dict[str, float]:
    """What each kind of call takes, in ms, and how many terms an explanation has."""
    users, items = (retriever.catalogue(side) for side in ("user", "item"))
    rows = np.random.default_rng(0).choice(users.size, n_users)
    query, found = timed(
        lambda id: retriever.retrieve("u2i", id=id, k=10), users.ids(rows).tolist()
    )
    pairs = [(id, hits.iloc[0, 0]) for id, hits in zip(users.ids(rows), found, strict=True)]
    by_id = [({"id": user}, {"id": item}) for user, item in pairs]
    targets = items.find(items.published.checked_ids([item for _, item in pairs]))
    by_features = [
        (_features(retriever, "user", user), _features(retriever, "item", item))
        for user, item in zip(rows, targets, strict=True)
    ]
    ids, explained = timed(lambda pair: _explain(retriever, *pair), by_id)
    described, _ = timed(lambda pair: _explain(retriever, *pair), by_features)
    features = (
        known_features(retriever.parts, "user", rows)[0],
        known_features(retriever.parts, "item", targets)[0],
    )
    direction = find_direction("u2i")
    split, _ = timed(lambda pair: split_score(direction, *pair), list(zip(*features, strict=True)))
    return {
        "query by id, k = 10, ms": query,
        "explanation by ids, ms": ids,
        "explanation by features, ms": described,
        "of it the sum, ms": split,
        "terms of a score": float(np.median([len(one) for one in explained])),
    }


def _features(retriever: Retriever, side: Any, row: int) -> dict[str, Any]:
    """A user or an item by the raw values that the version keeps."""
    values = raw_features(retriever.parts, side, np.array([row]))
    return {"features": {name: column[0] for name, column in values.items()}}


def _explain(retriever: Retriever, source: Any, target: Any) -> Any:
    """Explain, and write as the server answers."""
    explanation = retriever.explain("u2i", source=source, target=target)
    explanation.to_dict(limit=50)
    return explanation


def main() -> None:
    """Print what calls take."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path, help="the models directory that `run` wrote")
    parser.add_argument("--users", type=int, default=300)
    arguments = parser.parse_args()
    figures = measure(Retriever.open(arguments.models), n_users=arguments.users)
    for name, value in figures.items():
        print(f"{name:30} {value:10.3f}")


if __name__ == "__main__":
    main()
