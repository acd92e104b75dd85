from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving.retrieval.parts import Parts
from serving.retrieval.retriever import Retriever
from serving.server.observing import drift as module
from serving.server.observing.drift import Drift


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def figures(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(f"fm_recall_{name}", labels)
    return 0.0 if found is None else found


def refuse(_: object) -> None:
    raise AssertionError("expected it to have been read")


def ask(
    drift: Drift, retriever: Retriever, direction: str = "u2i", **asked: Any
) -> np.ndarray[Any, Any]:
    question = retriever.ask(direction, **asked)
    (hits,) = retriever.answer([question])
    drift.note(retriever, question, hits)
    return hits.scores


def test_unknown_tokens_empty_histories_and_scores_are_counted(
    models: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY", 1)
    drift, retriever = Drift(registry), Retriever.open(models, version=1)
    retriever.apply(retriever.change("item", upsert=[{"item_id": "fresh"}]))
    histories = [["item 1", "?", "fresh"], [], ["item 2"]]
    features = {"history": histories, "city": ["a", "Atlantis", None]}
    scores = ask(drift, retriever, features=features)
    ask(drift, retriever, ids=[2**40 + 3])
    ask(drift, retriever, features={"history": [["item 1"]]})
    drift.prepare(retriever)
    monkeypatch.setattr(Parts, "vocabulary", property(refuse))  # nothing is read while asked
    drift.count()
    drift.count()  # nothing twice
    assert figures(registry, "sampled_tokens_total", feature="history") == 5
    assert figures(registry, "sampled_unknown_tokens_total", feature="history") == 1
    assert figures(registry, "sampled_histories_total", feature="history") == 4
    assert figures(registry, "sampled_empty_histories_total", feature="history") == 1
    assert figures(registry, "sampled_tokens_total", feature="city") == 2
    assert figures(registry, "sampled_unknown_tokens_total", feature="city") == 1
    assert figures(registry, "best_score_count", direction="u2i") == 5
    below = float(np.count_nonzero(scores[:, 0] <= 0.5))
    assert figures(registry, "best_score_bucket", direction="u2i", le="0.5") >= below


def test_a_sample_is_one_of_several_and_bounded(models: Path, registry: CollectorRegistry) -> None:
    drift, retriever = Drift(registry), Retriever.open(models, version=1)
    for _ in range(module.EVERY * 3):
        ask(drift, retriever, ids=[2**40] * (module.MOST_SOURCES + 5))
    drift.count()
    counted = figures(registry, "best_score_count", direction="u2i")
    assert module.MOST_SOURCES <= counted <= (module.EVERY + 3) * module.MOST_SOURCES
