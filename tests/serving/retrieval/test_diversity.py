from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.retrieval.catalogue import Catalogue
from serving.retrieval.diversity import Capped, Diversity, search_diverse
from serving.search.index import ExactIndex, Found, Rows, no_pairs, search_without
from serving.version.embeddings import Embeddings
from towers.directions import DIRECTIONS
from towers.errors import QueryError

BRANDS = st.sampled_from(["a", "b", "c", None])
TAGS = st.lists(st.sampled_from(["x", "y", "z"]), max_size=2)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Catalogue, NDArray[np.float32], list[int]]:
    """Targets, two queries, and how many targets each of them wants."""
    kinds = draw(st.lists(st.tuples(BRANDS, TAGS), min_size=1, max_size=30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    table = pd.DataFrame({"item_id": range(len(kinds))}).assign(
        brand=pd.Series([brand for brand, _ in kinds], dtype=object),
        tags=pd.Series([tags for _, tags in kinds], dtype=object),
    )
    vectors = rng.normal(size=(len(kinds), 4)).astype(np.float32)
    queries = rng.normal(size=(2, 4)).astype(np.float32)
    wanted = draw(st.lists(st.integers(1, 8), min_size=2, max_size=2))
    return Catalogue(Embeddings.from_pandas(table, vectors)), queries, wanted


def found_by(
    world: tuple[Catalogue, NDArray[np.float32], list[int]],
    diversity: Diversity,
    *,
    least: float = -np.inf,
) -> Found:
    targets, queries, wanted = world
    index = ExactIndex(targets.vectors)

    def search(some: Rows, k: Rows) -> Found:
        return search_without(
            index, queries[some], k=k, width=int(k.max(initial=1)), unwanted=no_pairs()
        )

    return search_diverse(
        search,
        targets,
        DIRECTIONS["u2i"],
        diversity=diversity,
        k=np.array(wanted),
        width=max(wanted),
        least=np.full(2, least, dtype=np.float32),
    )


def kinds_of(targets: Catalogue, column: str) -> list[list[Any]]:
    cells = targets.show(np.arange(targets.size))[column].tolist()
    return [
        sorted(set(cell)) if isinstance(cell, list | np.ndarray) else [cell] * (cell is not None)
        for cell in cells
    ]


def brute_force(
    world: tuple[Catalogue, NDArray[np.float32], list[int]],
    diversity: Diversity,
    query: int,
    *,
    least: float,
) -> list[int]:
    """One target after another, by the definitions, in plain Python."""
    targets, queries, wanted = world
    vectors, k = targets.vectors, wanted[query]
    scores = queries[query] @ vectors.T
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    kinds = {column: kinds_of(targets, column) for column in diversity.max_per}
    depth = 4 * k
    while True:
        pool = [row for row in order[:depth] if scores[row] >= least]
        taken: list[int] = []
        while len(taken) < k:
            allowed = [
                row
                for row in pool
                if row not in taken
                and all(
                    sum(kind in kinds[column][other] for other in taken) < cap
                    for column, cap in diversity.max_per.items()
                    for kind in kinds[column][row]
                )
            ]
            if not allowed:
                break
            taken.append(
                max(
                    allowed,
                    key=lambda row: _value(row, taken, pool, scores, vectors, diversity.weight),
                )
            )
        if len(taken) == k or len(pool) < depth:
            return sorted(taken, key=order.index)
        depth *= 4


def _value(
    row: int, taken: list[int], pool: list[int], scores: Any, vectors: Any, weight: float
) -> tuple[float, int]:
    low, high = scores[pool[-1]], scores[pool[0]]
    relevance = (scores[row] - low) / (high - low) if high > low else 0.0
    unit = vectors[:, 1:] / np.linalg.norm(vectors[:, 1:], axis=1, keepdims=True)
    closest = max((float(unit[row] @ unit[other]) for other in taken), default=0.0)
    return round((1 - weight) * float(relevance) - weight * closest, 5), -pool.index(row)


@given(
    world=worlds(),
    caps=st.dictionaries(st.sampled_from(["brand", "tags"]), st.integers(1, 3), max_size=2),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    least=st.sampled_from([-np.inf, 0.0]),
)
def test_agrees_with_the_definitions_one_target_at_a_time(
    world: Any, caps: dict[str, int], weight: float, least: float
) -> None:
    diversity = Diversity(max_per=caps, weight=weight)
    rows, scores = found_by(world, diversity, least=least)
    for query in range(2):
        expected = brute_force(world, diversity, query, least=least)
        assert rows[query][rows[query] >= 0].tolist() == expected
        given = scores[query, : len(expected)]
        assert (np.diff(given) <= 0).all()  # best first


@given(world=worlds(), cap=st.integers(1, 2))
def test_an_answer_is_as_long_as_the_caps_allow(world: Any, cap: int) -> None:
    rows, _ = found_by(world, Diversity(max_per={"brand": cap}))
    brands = [kinds[0] if kinds else None for kinds in kinds_of(world[0], "brand")]
    free = brands.count(None) + sum(min(brands.count(one), cap) for one in "abc")
    for query, k in enumerate(world[2]):
        assert np.count_nonzero(rows[query] >= 0) == min(k, free)


@given(world=worlds())
def test_nothing_asked_for_is_the_order_of_scores(world: Any) -> None:
    targets, queries, wanted = world
    assert Diversity.of({}, 0.0) is None
    rows, _ = found_by(world, Diversity())
    for query, k in enumerate(wanted):
        expected = np.argsort(-(queries[query] @ targets.vectors.T), kind="stable")[:k]
        assert rows[query][rows[query] >= 0].tolist() == expected.tolist()


def test_values_are_numbered_whatever_they_are() -> None:
    column = Capped.of(["a", None, float("nan"), ["b", "a", "b"], [], "b"], 1)
    assert column.codes.tolist() == [[0, -1], [-1, -1], [-1, -1], [1, 0], [-1, -1], [1, -1]]


@pytest.mark.parametrize(
    ("max_per", "weight", "message"),
    [
        ({"brand": 0}, 0.0, "max_per: brand: expected at least 1, received 0"),
        ({"brand": True}, 0.0, "max_per: brand: expected at least 1, received True"),
        (None, 1.5, "diversity: expected a number from 0 to 1, received 1.5"),
        (None, float("nan"), "diversity"),
    ],
)
def test_what_makes_no_sense_is_refused(max_per: Any, weight: float, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Diversity.of(max_per, weight)
