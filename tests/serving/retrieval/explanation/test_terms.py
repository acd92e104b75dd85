from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.retrieval.explanation.active_features import ActiveFeatures
from serving.retrieval.explanation.terms import KINDS, split_score
from towers.directions import DIRECTIONS
from towers.features.schema import Side


@st.composite
def features(draw: st.DrawFn, side: Side) -> ActiveFeatures:
    n = draw(st.integers(0, 5))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    w = random.normal(size=n) if side == "item" else np.zeros(n)
    rows = random.choice(7, n, replace=False)
    x, v = random.normal(size=n), random.normal(size=(n, 3))
    return ActiveFeatures(side, rows, x, v, w, v, v)


@given(user=features("user"), item=features("item"))
def test_terms_of_a_match_are_those_of_the_factorization_machine(
    user: ActiveFeatures, item: ActiveFeatures
) -> None:
    expected: dict[str, list[float]] = {
        "first_order": [w * x for w, x in zip(item.w, item.x, strict=True)],
        "item_pair": [
            item.v[t] @ item.v[other] * item.x[t] * item.x[other]
            for t, other in itertools.combinations(range(len(item.x)), 2)
        ],
        "user_item": [
            user.v[u] @ item.v[t] * user.x[u] * item.x[t]
            for u in range(len(user.x))
            for t in range(len(item.x))
        ],
    }
    for direction, source, target in (("u2i", user, item), ("i2u", item, user)):
        terms = split_score(DIRECTIONS[direction], source, target)
        for kind, values in expected.items():
            found = terms.value[terms.kind == KINDS.index(kind)]
            np.testing.assert_allclose(np.sort(found), np.sort(values), atol=1e-12)
        assert len(terms) == sum(map(len, expected.values()))
        score = user.vector() @ item.vector()
        assert terms.value.sum() == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("name", ["i2i", "u2u"])
@given(data=st.data())
def test_terms_of_a_similarity_sum_to_the_cosine(name: str, data: st.DataObject) -> None:
    source, target = (data.draw(features(DIRECTIONS[name].source)) for _ in range(2))
    terms = split_score(DIRECTIONS[name], source, target)
    pooled = source.vector()[1:], target.vector()[1:]
    lengths = np.prod([np.linalg.norm(one) for one in pooled])
    cosine = pooled[0] @ pooled[1] / lengths if lengths else 0.0
    assert terms.value.sum() == pytest.approx(cosine, abs=1e-9)
    is_same = source.rows[terms.source] == target.rows[terms.target]
    assert (is_same == (terms.kind == KINDS.index("shared"))).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(data=st.data())
def test_groups_sum_the_terms_of_their_features(direction: str, data: st.DataObject) -> None:
    chosen = DIRECTIONS[direction]
    source, target = (data.draw(features(side)) for side in (chosen.source, chosen.target))
    terms = split_score(chosen, source, target)
    groups = source.rows % 3, target.rows % 2
    expected: Counter[Any] = Counter()
    of_item = groups[0] if direction == "i2u" else groups[1]
    columns = (terms.kind, terms.source, terms.target, terms.other, terms.value)
    for kind, one, two, other, value in zip(*columns, strict=True):
        ends = (of[at] if at >= 0 else -1 for of, at in ((groups[0], one), (groups[1], two)))
        expected[kind, *ends, of_item[other] if other >= 0 else -1] += value
    sums = terms.group_by(*groups)
    columns = (sums.kind, sums.source, sums.target, sums.other, sums.value)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    received = {tuple(key): value for *key, value in rows}
    assert received == pytest.approx(dict(expected), abs=1e-12)


@given(side=st.sampled_from(["user", "item"]), data=st.data())
def test_stored_vectors_may_differ_by_rounding_only(side: Side, data: st.DataObject) -> None:
    active = data.draw(features(side))
    stored = active.vector().astype(np.float32)
    assert active.gives(stored)
    if len(active.x):
        place = data.draw(st.integers(1, 3))
        stored[place] += 1e-3 * np.abs(active.v * active.x[:, np.newaxis]).sum()
        assert not active.gives(stored)
