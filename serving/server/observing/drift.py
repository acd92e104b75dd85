"""Drift: whether what is asked still looks like what the version was trained on.

Some of the questions are kept for a moment, and counted on a thread where nobody waits for it:
tokens that training never saw, histories without an item, and the best scores.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Histogram

from serving.retrieval.questions import Hits, Question
from serving.retrieval.retriever import Retriever
from serving.version.saved_models.tower import join_packed
from towers.features.kinds import Categorical, Feature, History, MultiValued
from towers.features.schema import Side, space_of
from towers.features.values import missing_marker
from towers.features.vocabulary import Tokens

EVERY = 16
"""One question of so many is looked at."""
KEPT, MOST_SOURCES = 64, 64
"""Questions that wait to be looked at, and sources of one that are."""
VOCABULARY, LARGE = "vocabulary/", 2**26
SCORES = (-16, -8, -4, -2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, eq=False)
class _Sample:
    retriever: Retriever
    side: Side
    packed: Mapping[str, NDArray[Any]]
    direction: str
    scores: NDArray[np.float32]
    """The best of each source."""


class Drift:
    """Counts a sample of the questions. `note` is for one thread, `count` for another."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Have the figures in a registry."""
        self._waiting: deque[_Sample] = deque(maxlen=KEPT)
        self._seen = 0
        self._known: WeakKeyDictionary[Retriever, dict[str, pd.Index[Any]]] = WeakKeyDictionary()

        def counter(name: str, what: str, label: str = "feature") -> Counter:
            return Counter(f"fm_recall_{name}", what, [label], registry=registry)

        self._tokens = counter("sampled_tokens", "Tokens and past items in a sample of questions.")
        self._unknown = counter("sampled_unknown_tokens", "Those of them that nobody knows.")
        self._histories = counter("sampled_histories", "Histories in a sample of questions.")
        self._empty = counter("sampled_empty_histories", "Those of them without an item.")
        self._scores = Histogram(
            "fm_recall_best_score",
            "The best score of a source, in a sample of questions.",
            ["direction"],
            buckets=SCORES,
            registry=registry,
        )

    def note(self, retriever: Retriever, question: Question, hits: Hits) -> None:
        """Keep a question, if it is its turn."""
        self._seen += 1
        if self._seen % EVERY and self._seen > EVERY:
            return
        packed = question.packed or {}
        first = slice(0, MOST_SOURCES)
        self._waiting.append(
            _Sample(
                retriever,
                question.direction.source,
                {name: values[first] for name, values in packed.items()},
                question.direction.name,
                hits.scores[first, :1].ravel(),
            )
        )

    def prepare(self, retriever: Retriever) -> None:
        """Read what to count users needs, before they ask: to read it holds up other threads."""
        for feature in retriever.parts.schema.features("user"):
            if isinstance(feature, (Categorical, MultiValued)):
                self._tokens_of(retriever, "user", feature)

    def count(self) -> None:
        """Count what was kept, all questions about one side together."""
        described = defaultdict(list)
        for sample in [self._waiting.popleft() for _ in range(len(self._waiting))]:
            for score in sample.scores[np.isfinite(sample.scores)].tolist():
                self._scores.labels(sample.direction).observe(score)
            if sample.packed:
                described[sample.retriever, sample.side].append(sample.packed)
        for (retriever, side), several in described.items():
            packed = join_packed(several)
            for feature in retriever.parts.schema.features(side):
                if feature.name in packed:
                    self._count_feature(retriever, side, feature, packed[feature.name])

    def _count_feature(
        self, retriever: Retriever, side: Side, feature: Feature, values: NDArray[Any]
    ) -> None:
        is_given = values != missing_marker(values.dtype)
        given = values[is_given]
        if isinstance(feature, History):
            empty = len(values) - int(np.count_nonzero(is_given.any(axis=1)))
            self._histories.labels(feature.name).inc(len(values))
            self._empty.labels(feature.name).inc(empty)
            n_unknown = len(retriever.catalogue("item").unknown(given.tolist()))
        elif isinstance(feature, (Categorical, MultiValued)):
            known = self._tokens_of(retriever, side, feature)
            if known is None:
                return
            found = known.get_indexer(pd.Index(given, dtype=known.dtype))
            n_unknown = int(np.count_nonzero(found < 0))
        else:
            return
        self._tokens.labels(feature.name).inc(given.size)
        self._unknown.labels(feature.name).inc(n_unknown)

    def _tokens_of(
        self, retriever: Retriever, side: Side, feature: Categorical | MultiValued
    ) -> pd.Index[Any] | None:
        """The tokens that training has seen.

        None where they are hashed, so that all are known, or where the vocabulary is so large that
        it is not read for this.
        """
        parts = retriever.parts
        files = retriever.bundle.manifest.files
        if sum(file.bytes for name, file in files.items() if name.startswith(VOCABULARY)) > LARGE:
            return None
        name = space_of(feature, side=side, schema=parts.schema)
        known = self._known.setdefault(retriever, {})
        if name not in known:
            space = parts.vocabulary.spaces[name]
            if not isinstance(space, Tokens):
                return None
            known[name] = pd.Index(space.tokens)
            _ = known[name].is_unique  # which makes its table for lookups
        return known[name]
