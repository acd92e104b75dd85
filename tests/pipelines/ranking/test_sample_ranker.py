"""Rankers by Gibbs sampling: what is published is the mean of the machines that were drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import sparse

from pipelines.rank_config import RankConfig, RankCross
from pipelines.ranking.encode import encode_tables
from pipelines.ranking.examples import Examples, Reader, Tables
from pipelines.ranking.fit_ranker import Scorer
from pipelines.ranking.sample_ranker import (
    Machine,
    assign,
    design,
    mean_of,
    sample_machine,
    sample_ranker,
)
from towers import extras, fm_numpy
from towers.errors import ConfigError
from towers.features.kinds import Categorical, Features, MultiValued, Numeric
from towers.features.schema import Schema
from towers.features.vocabulary import fit_vocabulary
from towers.ranking.ranker import Ranker
from towers.ranking.settings import RankerSettings

N_USERS, N_ITEMS, N = 12, 9, 200
CONFIG = RankConfig(
    solver="mcmc",
    model=RankerSettings(kind="fm", embedding_dim=2),
    epochs=20,
    samples=19,
)


@pytest.fixture(scope="module")
def tables() -> Tables:
    """Fields of one feature, of several, with real values, and of the two together."""
    rng = np.random.default_rng(0)
    users = pd.DataFrame(
        {
            "user": np.arange(N_USERS),
            "likes": [[f"g{n}" for n in rng.permutation(4)[:3]] for _ in range(N_USERS)],
            "age": rng.integers(18, 80, N_USERS).astype(float),
        }
    )
    tags = [[f"t{n}" for n in rng.permutation(5)[:2]] for _ in range(N_ITEMS)]
    items = pd.DataFrame({"item": np.arange(N_ITEMS), "tags": tags})
    liked, tagged = MultiValued(column="likes"), MultiValued(column="tags")
    schema = Schema.of(
        user_id="user",
        item_id="item",
        user=Features(features=(Categorical(column="user"), liked, Numeric(column="age"))),
        item=Features(features=(Categorical(column="item"), tagged)),
    )
    vocabulary = fit_vocabulary(
        schema,
        users=users,
        items=items,
        user_counts=np.ones(N_USERS, np.int64),
        item_counts=np.ones(N_ITEMS, np.int64),
    )
    crosses = [RankCross(user="likes", item="tags", buckets=100_000)]  # no two share a row
    return encode_tables(schema, vocabulary, users=users, items=items, crosses=crosses)


@pytest.fixture(scope="module")
def examples() -> Examples:
    rng = np.random.default_rng(1)
    users, items = rng.integers(N_USERS, size=N), rng.integers(N_ITEMS, size=N)
    return Examples(
        users=users,
        items=items,
        moments=np.zeros(N, np.int64),
        labels=((users + items) % 3 == 0).astype(np.float32),
        recall=np.full(N, np.nan, np.float32),
        weights=np.ones(N, np.float32),
    )


def scores_of(machine: Machine, x: sparse.csr_array) -> NDArray[np.float64]:
    """The plain machine, over all pairs of features."""
    pool = fm_numpy.pooled(x, machine.v)
    second = fm_numpy.second_order(x, machine.v, pool=pool)
    return machine.bias + fm_numpy.first_order(x, machine.w) + second


def random_machine(rng: np.random.Generator, n: int, k: int) -> Machine:
    return Machine(float(rng.normal()), rng.normal(size=n), rng.normal(size=(n, k)))


def test_the_mean_of_machines_scores_as_they_do_on_average() -> None:
    rng = np.random.default_rng(0)
    x = sparse.csr_array(rng.normal(size=(6, 7)) * (rng.random((6, 7)) < 0.5))
    machines = [random_machine(rng, 7, 3) for _ in range(5)]
    expected = np.mean([scores_of(one, x) for one in machines], axis=0)
    np.testing.assert_allclose(scores_of(mean_of(machines), x), expected)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_a_ranker_scores_as_the_plain_machine_over_the_design(
    tables: Tables, examples: Examples, scale: float
) -> None:
    """Features of one field meet too, and those of pairs are there."""
    reader = Reader(tables)
    whole = design(tables, examples)
    x = whole.flat()
    settings = RankerSettings(kind="fm", embedding_dim=5, within_fields=True, dropout=0.0)
    ranker = Ranker(tables.n_rows, len(tables.fields.names), settings)
    machine = random_machine(np.random.default_rng(2), tables.n_rows, 3)
    scores = Scorer(ranker, reader)
    scores(examples)
    assign(ranker, machine, scale=scale)
    np.testing.assert_allclose(
        scores(examples), scale * scores_of(machine, x), rtol=1e-3, atol=1e-3
    )
    assert set(whole.fields[np.unique(x.indices)]) == set(range(len(tables.fields.names)))


@pytest.mark.parametrize("is_apart", [True, False])
def test_machines_are_those_of_the_library(
    tables: Tables, examples: Examples, is_apart: bool
) -> None:
    """With all that it keeps, the scores are its own predictions of the whole matrix."""
    myfm: Any = pytest.importorskip("myfm")
    whole = design(tables, examples)
    assert whole.is_apart
    if not is_apart:  # an item that is a feature of queries too
        shared = whole.items[[0]] * 0.5
        queries = sparse.vstack([whole.queries[:-1], whole.queries[[-1]] + shared], format="csr")
        whole = whole._replace(queries=sparse.csr_array(queries))
        assert not whole.is_apart
    x = whole.flat()
    machine = sample_machine(whole, examples.labels, config=CONFIG, seed=3, is_rating=True)
    used = [np.unique(one.indices) for one in (whole.pairs, whole.queries, whole.items)]
    columns = np.concatenate(used) if is_apart else np.unique(x.indices)
    known = sparse.csr_matrix(x[:, columns])
    model = myfm.MyFMRegressor(rank=2, random_seed=3)
    _, groups = np.unique(whole.fields[columns], return_inverse=True)
    labels = examples.labels.astype(np.float64)
    model.fit(known, labels, n_iter=20, n_kept_samples=19, grouping=groups.tolist())
    np.testing.assert_allclose(scores_of(machine, x), model.predict(known), rtol=1e-6)


@pytest.mark.slow
def test_what_users_choose_is_learned_and_kept(
    tables: Tables, examples: Examples, tmp_path: Path
) -> None:
    pytest.importorskip("myfm")
    config = dataclasses.replace(CONFIG, epochs=60, samples=20)
    found, again = (
        sample_ranker(tables, examples, examples, config=config, seed=0, folder=tmp_path)
        for _ in range(2)
    )
    assert found.records[0]["auc"] > 0.9
    assert found.records[0]["log_loss"] < 0.5
    np.testing.assert_array_equal(found.scores(examples), again.scores(examples))


@pytest.mark.slow
def test_without_the_library_the_error_says_what_to_install(
    tables: Tables, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_nothing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras, "import_module", import_nothing)
    with pytest.raises(ConfigError, match=r"pip install 'fm-recall\[mcmc\]'"):
        sample_ranker(tables, examples, examples, config=CONFIG, seed=0, folder=tmp_path)
    with pytest.raises(ConfigError, match=r'rank\.model\.kind = "fm"'):
        RankConfig(solver="mcmc")
