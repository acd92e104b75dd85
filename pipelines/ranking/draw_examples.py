"""Draw examples: what a version was not trained on, among what it finds for the same users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.blocks import ids_of
from pipelines.data.prepare import Prepared
from pipelines.rank_config import RankConfig
from pipelines.ranking.examples import Examples, Rows
from serving.retrieval.questions import Hits
from serving.retrieval.retriever import Retriever
from serving.search.index import Vectors
from towers.errors import ConfigError, DataError
from towers.features.schema import SIDES

ASKED_TOGETHER = 256
"""How many queries are asked at a time."""

FEWEST_USERS = 10
"""The users with held-out interactions from which on some can be held out of them."""

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """What was held out from a version, by its rows, each [n]."""

    users: Rows
    items: Rows
    moments: Rows
    is_chosen: NDArray[np.bool_]
    """Whether it is a positive; else it was shown and not chosen."""

    def take(self, kept: NDArray[np.bool_]) -> Events:
        """Some of them."""
        return Events(**{name: values[kept] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Lists:
    """Recall's candidates of n_queries users at moments, best first."""

    examples: Examples
    """All candidates."""
    queries: Rows
    """The query of each, ascending [n]."""
    n_chosen: Rows
    """How many items each query has chosen, found or not, [n_queries]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What a part of the users gives."""

    fitting: Examples
    """What is fitted, or decides when to stop."""
    lists: Lists
    """What is ranked."""


def held_out_events(
    prepared: Prepared, retriever: Retriever, *, not_chosen: Sequence[str]
) -> Events:
    """Read the test part of the tables, without what the version was trained on.

    Users and items that the version does not have are left out.

    Raises:
        ConfigError: a name of `not_chosen` is no behaviour.
        DataError: nothing is left.
    """
    stored = prepared.stored("test")
    names = list(stored.behaviours)
    if unknown := sorted(set(not_chosen) - set(names)):
        raise ConfigError(
            f"rank.not_chosen: expected some of the behaviours {names}, received {unknown}; "
            "correct them, or add data.behaviours"
        )
    roles = {name for name, one in stored.behaviours.items() if one.role == "negative"}
    codes = [names.index(name) for name in (not_chosen or roles)]
    parts = []
    for number in range(stored.n_blocks):
        block = stored.block(number)
        if block.events is None:
            users, items = (part.astype(np.int64) for part in block.matrix.tocoo().coords)
            chosen, moments = np.ones(len(users), np.bool_), np.zeros(len(users), np.int64)
        else:
            events = block.events
            kept = events.positive | np.isin(events.behaviours, codes)
            users, items, chosen = events.users[kept], events.items[kept], events.positive[kept]
            moments = events.moments[kept].astype(np.int64)
        parts.append((block.users[users], items, moments, chosen))
    users, items, moments, chosen = (np.concatenate(part) for part in zip(*parts, strict=True))
    places = {}
    for side in SIDES:
        ids = ids_of(prepared.tables[side], prepared.tables[side].columns[0])
        places[side] = retriever.catalogue(side).rows(ids.tolist())
    found = Events(
        users=places["user"][users],
        items=places["item"][items],
        moments=moments,
        is_chosen=chosen,
    )
    found = found.take((found.users >= 0) & (found.items >= 0))
    found = found.take(~_is_known(found, retriever))
    if len(np.unique(found.users[found.is_chosen])) < FEWEST_USERS:
        raise DataError(
            f"rank: expected positives of at least {FEWEST_USERS} users that version "
            f"{retriever.version} was not trained on, received those of "
            f"{len(np.unique(found.users[found.is_chosen]))}; hold more out "
            "(split.test_fraction), or give tables with later interactions"
        )
    return found


def _is_known(events: Events, retriever: Retriever) -> NDArray[np.bool_]:
    """Whether the version was trained on a user's positive of an item."""
    seen = retriever.parts.seen.matrix.tocoo()
    width = retriever.catalogue("item").size
    known = seen.coords[0].astype(np.int64) * width + seen.coords[1]
    return np.isin(events.users * width + events.items, known)


def draw(
    events: Events,
    retriever: Retriever,
    contexts: pd.DataFrame | None,
    *,
    config: RankConfig,
    seed: int,
) -> dict[str, Drawn]:
    """Divide the users at random, and draw the examples of each part: train, validation and test.

    Where there are exposures, these are the examples, with the score that recall gives each; else
    the chosen among recall's candidates, and some of those that were not.

    Raises:
        DataError: a part has no candidate that was chosen.
    """
    users = np.unique(events.users[events.is_chosen])
    random = np.random.default_rng(seed)
    shares = np.cumsum([config.validation_fraction, config.test_fraction])
    cuts = np.maximum(1, np.rint(shares * len(users))).astype(np.int64)
    validation, test, train = np.split(random.permutation(users), cuts)
    found = {}
    for name, part in zip(PARTS, (train, validation, test), strict=True):
        own = events.take(np.isin(events.users, part))
        lists = find_lists(own, retriever, contexts, k=config.candidates)
        labels = lists.examples.labels
        if not 0 < labels.sum() < len(labels):
            raise DataError(
                f"rank: expected candidates of the {name} users of which some were chosen, "
                f"received {len(labels)} of which {int(labels.sum())} were; raise "
                "rank.candidates, or hold more out"
            )
        if not own.is_chosen.all():
            fitting = _exposures(own, retriever, contexts)
        elif name == "train":
            fitting = lists.examples.take(_drawn(labels, per_positive=config.negatives, rng=random))
        else:
            fitting = lists.examples
        found[name] = Drawn(fitting=fitting, lists=lists)
    return found


def find_lists(
    events: Events, retriever: Retriever, contexts: pd.DataFrame | None, *, k: int
) -> Lists:
    """Ask recall for the candidates of each user at each moment of a choice."""
    chosen = events.take(events.is_chosen)
    n_moments = int(events.moments.max(initial=0)) + 1
    keys = chosen.users * n_moments + chosen.moments
    queries, n_chosen = np.unique(keys, return_counts=True)
    width = retriever.catalogue("item").size
    positives = np.sort(np.searchsorted(queries, keys) * width + chosen.items)
    columns: dict[str, list[Rows]] = {"query": [], "item": []}
    scores = []
    for start in range(0, len(queries), ASKED_TOGETHER):
        some = queries[start : start + ASKED_TOGETHER]
        hits = _ask(retriever, some // n_moments, some % n_moments, contexts, k=k)
        source, place = np.nonzero(hits.rows >= 0)
        columns["query"].append(start + source)
        columns["item"].append(hits.rows[source, place])
        scores.append(hits.scores[source, place])
    query, item = (np.concatenate(parts) for parts in columns.values())
    pair = query * width + item
    at = np.minimum(np.searchsorted(positives, pair), len(positives) - 1)
    examples = Examples(
        users=queries[query] // n_moments,
        items=item,
        moments=queries[query] % n_moments,
        labels=(positives[at] == pair).astype(np.float32),
        recall=np.concatenate(scores).astype(np.float32),
        weights=np.ones(len(query), np.float32),
    )
    return Lists(examples=examples, queries=query, n_chosen=n_chosen)


def _ask(
    retriever: Retriever, users: Rows, moments: Rows, contexts: pd.DataFrame | None, *, k: int
) -> Hits:
    """Ask for the candidates of users at moments, without what they have seen."""
    ids = retriever.catalogue("user").ids(users).tolist()
    features = _moment_features(retriever, moments, contexts)
    return retriever.retrieve_batch("u2i", ids=ids, features=features, k=k, exclude_seen=True)


def _moment_features(
    retriever: Retriever, moments: Rows, contexts: pd.DataFrame | None
) -> dict[str, list[object]] | None:
    """The raw features of moments; None where there are none."""
    features = retriever.parts.schema.context_features
    if contexts is None or not features:
        return None
    return {one.name: contexts[one.column].iloc[moments].tolist() for one in features}


def _exposures(events: Events, retriever: Retriever, contexts: pd.DataFrame | None) -> Examples:
    """What was shown, with the scores that recall gives it."""
    items = retriever.catalogue("item").vectors
    scores = []
    for start in range(0, len(events.users), ASKED_TOGETHER):
        some = slice(start, start + ASKED_TOGETHER)
        queries = _vectors(retriever, events.users[some], events.moments[some], contexts)
        scores.append((queries * items[events.items[some]]).sum(axis=1))
    return Examples(
        users=events.users,
        items=events.items,
        moments=events.moments,
        labels=events.is_chosen.astype(np.float32),
        recall=np.concatenate(scores).astype(np.float32),
        weights=np.ones(len(events.users), np.float32),
    )


def _vectors(
    retriever: Retriever, users: Rows, moments: Rows, contexts: pd.DataFrame | None
) -> Vectors:
    """V_user of users at moments."""
    features = _moment_features(retriever, moments, contexts)
    if features is None:
        return retriever.catalogue("user").vectors[users]
    ids = retriever.catalogue("user").ids(users).tolist()
    question = retriever.ask("u2i", ids=ids, features=features)
    return retriever.encode("user", question.packed or {})


def _drawn(labels: NDArray[np.float32], *, per_positive: int, rng: np.random.Generator) -> Rows:
    """The places of all positives, and of so many negatives drawn at random."""
    positives, negatives = np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)
    size = min(per_positive * len(positives), len(negatives))
    return np.concatenate([positives, rng.choice(negatives, size, replace=False)])
