from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.retrieval.explanation.bag import Bag
from serving.retrieval.explanation.terms import KINDS, split_score
from towers.directions import DIRECTIONS


@st.composite
def bags(draw: st.DrawFn) -> Bag:
    n = draw(st.integers(0, 5))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    rows = random.choice(7, n, replace=False)
    return Bag(rows, random.normal(size=n), random.normal(size=(n, 3)), random.normal(size=n))


@given(user=bags(), item=bags())
def test_terms_of_a_match_are_those_of_the_factorization_machine(user: Bag, item: Bag) -> None:
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
        assert len(terms.value) == sum(map(len, expected.values()))
        score = user.vector("user") @ item.vector("item")
        assert terms.value.sum() == pytest.approx(score, abs=1e-9)


@given(source=bags(), target=bags(), name=st.sampled_from(["i2i", "u2u"]))
def test_terms_of_a_similarity_sum_to_the_cosine(source: Bag, target: Bag, name: str) -> None:
    terms = split_score(DIRECTIONS[name], source, target)
    lengths = np.linalg.norm(source.pooled) * np.linalg.norm(target.pooled)
    cosine = source.pooled @ target.pooled / lengths if lengths else 0.0
    assert terms.value.sum() == pytest.approx(cosine, abs=1e-9)
    is_same = source.rows[terms.source] == target.rows[terms.target]
    assert (is_same == (terms.kind == KINDS.index("shared"))).all()


@given(bag=bags(), side=st.sampled_from(["user", "item"]), data=st.data())
def test_stored_vectors_may_differ_by_rounding_only(
    bag: Bag, side: str, data: st.DataObject
) -> None:
    stored = bag.vector(side).astype(np.float32)  # type: ignore[arg-type]
    assert not bag.differs(stored, side=side)  # type: ignore[arg-type]
    if len(bag.x):
        place = data.draw(st.integers(1, 3))
        stored[place] += 1e-3 * np.abs(bag.terms).sum()
        assert bag.differs(stored, side=side)  # type: ignore[arg-type]
