from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale.__main__ import CONFIG
from benchmarks.scale.draw import HEAD, draw_slices, draw_within
from benchmarks.scale.generate import Summary, generate
from benchmarks.scale.population import (
    MOST,
    SPAN,
    START,
    UNKNOWN,
    USERS,
    Items,
    Size,
    apportion,
    make_counts,
    make_items,
    make_users,
    scrambled,
)
from pipelines.config import load_config
from pipelines.data.blocks import PARTS
from pipelines.data.prepare import prepare
from towers.errors import ConfigError

SIZE = Size(interactions=60_000, users=3000, items=2000)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale") / "data"
    generate(SIZE, folder, rows_a_shard=20_000)
    return folder


@pytest.fixture(scope="module")
def rows(data: Path) -> pd.DataFrame:
    return interactions(data)


def interactions(folder: Path) -> pd.DataFrame:
    shards = [pd.read_parquet(path) for path in sorted((folder / "interactions").iterdir())]
    return pd.concat(shards, ignore_index=True)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_size_gives_the_same_bytes_and_another_seed_others(
    data: Path, tmp_path: Path
) -> None:
    generate(SIZE, tmp_path / "again", rows_a_shard=20_000)
    assert digests(tmp_path / "again") == digests(data)
    generate(Size(interactions=60_000, users=3000, items=2000, seed=1), tmp_path / "other")
    other = digests(tmp_path / "other")
    assert not set(other.values()) & set(digests(data).values())


def test_what_the_shards_hold_does_not_depend_on_where_they_are_cut(
    rows: pd.DataFrame, data: Path, tmp_path: Path
) -> None:
    generate(SIZE, tmp_path / "whole")
    assert len(list((tmp_path / "whole" / "interactions").iterdir())) == 1
    assert len(list((data / "interactions").iterdir())) == 3
    pd.testing.assert_frame_equal(interactions(tmp_path / "whole"), rows)


def test_interactions_are_in_order_of_time_over_two_years(rows: pd.DataFrame) -> None:
    assert list(rows.dtypes) == ["int64"] * 3
    assert list(rows.columns) == ["user_id", "item_id", "time"]
    assert rows["time"].is_monotonic_increasing
    assert rows["time"].min() >= START
    assert START + 0.99 * SPAN < rows["time"].max() < START + SPAN


def test_activity_and_popularity_are_skewed_as_the_summary_says(
    data: Path, rows: pd.DataFrame
) -> None:
    a_user = rows["user_id"].value_counts()
    an_item = rows["item_id"].value_counts()
    assert generate(SIZE, data) == Summary(
        interactions=len(rows),
        users=3000,
        items=2000,
        seed=0,
        top_share=round(an_item.iloc[:20].sum() / len(rows), 4),
        items_chosen=len(an_item),
        median_a_user=a_user.median(),
        mean_a_user=20.0,
        most_a_user=a_user.max(),
    )
    assert len(rows) == 60_000
    assert len(a_user) == 3000
    assert a_user.median() < 10
    assert a_user.max() > 200
    assert an_item.iloc[:20].sum() / len(rows) > 0.04


def test_the_tables_have_the_columns_and_types_that_are_promised(data: Path) -> None:
    shapes = {
        "users.parquet": {"user_id": "int64", "age": "string", "city": "int64"},
        "items.parquet": {
            "item_id": "int64",
            "category": "string",
            "brand": "int64",
            "price": "double",
            "tags": "list<element: string>",
        },
    }
    for name, columns in shapes.items():
        schema = pq.read_schema(data / name)
        assert dict(zip(schema.names, map(str, schema.types), strict=True)) == columns
    items = pd.read_parquet(data / "items.parquet")
    assert (items["price"].dropna() > 0).all()
    assert (items.groupby("brand")["category"].nunique() == 1).all()
    tags = items["tags"].dropna()
    assert set(tags.map(len)) == {0, 1, 2, 3, 4}
    assert (tags.map(set).map(len) == tags.map(len)).all()
    users = pd.read_parquet(data / "users.parquet")
    for column in (items["price"], items["tags"], users["age"]):
        assert 0 < column.isna().mean() < 3 * UNKNOWN


def test_ids_are_no_row_numbers_and_are_in_no_order(data: Path) -> None:
    for side in ("user", "item"):
        ids = pd.read_parquet(data / f"{side}s.parquet")[f"{side}_id"]
        assert ids.is_unique
        assert ids.max() > 2**39
        assert not ids.is_monotonic_increasing


def test_the_run_file_reads_the_tables_and_its_split_has_cold_users_and_items(
    data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    shutil.copyfile(CONFIG, tmp_path / "data" / "run.toml")
    config = load_config(tmp_path / "data" / "run.toml")
    prepared = prepare(config, tmp_path / "prepared")
    assert "interactions: 60,000 rows read" in prepared.lines[2]
    assert sum(prepared.counts[part] for part in PARTS) > 0.8 * 60_000  # repeats are merged
    train, test = prepared.frame("train"), prepared.frame("test")
    for column in ("user_id", "item_id"):
        is_cold = ~test[column].isin(train[column])
        assert 0 < is_cold.mean() < 0.5


def test_users_keep_to_their_favourites_and_items_to_their_release() -> None:
    items = make_items(SIZE)
    users = make_users(SIZE, items)
    category, n_favourite, n_brand = items.category, 0, 0
    for drawn in draw_slices(SIZE, users, items, make_counts(SIZE, users)):
        chosen = category[drawn.places]
        is_slot = users.favourites[drawn.users] == chosen[:, np.newaxis]
        brand = (drawn.places - items.starts[chosen]) % items.brands[chosen]
        n_favourite += int(is_slot.any(axis=1).sum())
        is_brand = users.brands[drawn.users] == brand[:, np.newaxis]
        n_brand += int((is_slot & is_brand).any(axis=1).sum())
        seconds = drawn.times - START
        assert (items.released[drawn.places] <= seconds).all()
        arrived = users.arrival[drawn.users] - SPAN / 128  # to the slice
        assert (arrived <= seconds).all()
    assert 0.75 < n_favourite / SIZE.interactions < 0.9  # by chance, too
    assert 0.3 < n_brand / SIZE.interactions < 0.6


def test_users_of_an_age_like_the_same() -> None:
    items = make_items(SIZE)
    users = make_users(Size(interactions=10**5, users=10**5, items=2000), items)
    shares = [
        np.bincount(users.favourites[users.age == age].ravel(), minlength=len(items.counts))
        / (users.favourites[users.age == age].size)
        for age in (1, 2)
    ]
    assert np.abs(shares[0] - shares[1]).sum() > 0.5


def test_popularity_follows_the_law_within_a_category_and_within_a_brand() -> None:
    n, draws = 50, 200_000
    items = Items(
        ids=np.arange(n + 3),
        released=np.zeros(n + 3, dtype=np.int32),
        starts=np.array([0, 3], dtype=np.int32),
        counts=np.array([3, n], dtype=np.int32),
        brands=np.array([1, 4], dtype=np.int32),
        shares=np.array([0.5, 0.5]),
    )
    category = np.ones(draws, dtype=np.int16)
    rng = np.random.default_rng(0)
    places = draw_within(category, items, rng)
    rank = np.arange(n)
    expected = np.log((rank + 1 + HEAD) / (rank + HEAD)) / np.log((n + HEAD) / HEAD)
    found = np.bincount(places - 3, minlength=n) / draws
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(expected.max() / draws))
    brand = np.full(draws, 1, dtype=np.int16)
    of_brand = draw_within(category, items, rng, brand=brand, is_brand=np.full(draws, True))
    assert sorted(set(of_brand - 3)) == list(range(1, n, 4))


def test_a_folder_that_is_whole_is_kept_and_half_of_one_is_not(data: Path, tmp_path: Path) -> None:
    half = tmp_path / ".data.partial" / "interactions"
    half.mkdir(parents=True)
    (half / "part-00099.parquet").write_bytes(b"half")
    rows: list[int] = []
    summary = generate(SIZE, tmp_path / "data", rows_a_shard=20_000, advance=rows.append)
    assert sum(rows) == SIZE.interactions
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert digests(tmp_path / "data") == digests(data)
    assert generate(SIZE, tmp_path / "data", advance=rows.append) == summary
    assert sum(rows) == SIZE.interactions


@pytest.mark.parametrize("n", [300, 20_000, 300 * MOST - 1, 300 * MOST])
def test_every_user_has_from_one_to_the_most_interactions(n: int) -> None:
    size = Size(interactions=n, users=300, items=60)
    counts = make_counts(size, make_users(size, make_items(size)))
    assert counts.sum() == n
    assert counts.min() >= 1
    assert counts.max() <= MOST


@pytest.mark.parametrize("n", [299, 300 * MOST + 1])
def test_a_number_of_interactions_that_users_cannot_have_is_refused(n: int) -> None:
    with pytest.raises(ConfigError, match="expected from 1 to 5,000 a user, received"):
        Size(interactions=n, users=300, items=60)


@given(
    st.integers(0, 10**6),
    st.lists(st.floats(0.01, 100.0), min_size=1, max_size=50),
)
def test_apportioned_numbers_are_near_their_shares_and_add_up(
    total: int, weights: list[float]
) -> None:
    shares = np.array(weights) / sum(weights) * total
    found = apportion(total, np.array(weights))
    assert found.sum() == total
    assert (np.abs(found - shares) < 1 + 1e-6).all()


@given(st.lists(st.integers(0, 2**40 - 1), unique=True, min_size=1))
def test_scrambled_rows_stay_apart(rows: list[int]) -> None:
    ids = scrambled(np.array(rows), side=USERS)
    assert len(set(ids.tolist())) == len(rows)
    assert ((ids >= 0) & (ids < 2**40)).all()
