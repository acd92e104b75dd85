from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from pipelines.config import RunConfig
from pipelines.data.hold_out import TrainedOn
from pipelines.data.prepare import Prepared, prepare
from pipelines.progress import Advance, Reporter
from pipelines.results import Results
from pipelines.run import run
from pipelines.training.parent import Parent, read_parent
from serving.version.embeddings import Embeddings
from serving.version.manifest import MANIFEST, Provenance
from serving.version.store import Store
from tests.without_graphs import without_graphs
from towers.errors import BundleError, ConfigError, DataError
from towers.features.schema import SIDES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_graphs")]

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

Frames = Mapping[str, pd.DataFrame]

N_OLD_ITEMS, N_OLD_USERS = 34, 50
"""Of forty and sixty; the others are new to the run that continues."""
SOON = {"epochs": 2, "rounds": 0, "continued_epochs": 2, "refit_on_all": False}


@pytest.fixture(scope="module")
def before(tiny: Tiny) -> Frames:
    """The tables as they were: two thirds of the time line, without the newest users and items."""
    users, items = tiny.tables["users"][:N_OLD_USERS], tiny.tables["items"][:N_OLD_ITEMS]
    table = tiny.tables["interactions"].sort_values("time")
    table = table.iloc[: len(table) * 2 // 3]
    table = table[table["user_id"].isin(users["user_id"]) & table["item_id"].isin(items["item_id"])]
    return {"interactions": table, "users": users, "items": items}


@pytest.fixture(scope="module")
def models(tiny: Tiny, before: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with the version to continue from. For reading only."""
    out = tmp_path_factory.mktemp("parent") / "models"
    with without_graphs():
        run(
            tiny.config(training=SOON | {"refit_on_all": True}, split={"test_fraction": 0.0}),
            out,
            frames=before,
        )
    return out


@pytest.fixture
def out(models: Path, tmp_path: Path) -> Path:
    """A copy of it to publish to."""
    return Path(shutil.copytree(models, tmp_path / "models", symlinks=True))


@pytest.fixture(scope="module")
def parent(tiny: Tiny, models: Path) -> Parent:
    return read_parent(Store(models), 1, config=tiny.config())


def continue_from(
    tiny: Tiny,
    out: Path,
    *,
    reporter: Reporter | None = None,
    init: str = "spectral",
    **training: Any,
) -> Results:
    config = tiny.config(training=SOON | training, model={"init": init})
    return run(config, out, frames=tiny.tables, from_version=1, reporter=reporter)


def pairs(*frames: pd.DataFrame) -> set[tuple[Any, Any]]:
    return {
        pair
        for frame in frames
        for pair in zip(frame["user_id"].tolist(), frame["item_id"].tolist(), strict=True)
    }


def known(trained_on: TrainedOn) -> set[tuple[Any, Any]]:
    ids = {side: pd.Index(trained_on.ids[side]) for side in SIDES}
    found = [
        zip(ids["user"][users].tolist(), ids["item"][items].tolist(), strict=True)
        for users, items in trained_on.pairs_among(ids)
    ]
    return {pair for block in found for pair in block}


def test_what_the_parent_was_trained_on_is_known(parent: Parent, before: Frames) -> None:
    assert known(parent.trained_on) == pairs(before["interactions"])
    assert parent.vectors.shape == (parent.vocabulary.n_rows, 8)
    assert np.all(np.any(parent.vectors[parent.vocabulary.tokens("item.item_id").rows], axis=1))


def test_a_continuation_is_one_round_that_mines_with_the_parent(tiny: Tiny, out: Path) -> None:
    results = continue_from(tiny, out, epochs=7, rounds=3)
    manifest = Store(out).open(2).manifest
    assert manifest.parent_version == 1
    assert manifest.mined == {"version": 1, "ranks": [2, 9], "queries": 60}
    training = manifest.config["training"]
    assert (training["epochs"], training["rounds"]) == (2, 0)
    assert Store(out).versions() == [1, 2]
    assert results["current_version"] == Store(out).current() == 2
    assert [record["epoch"] for record in results["rounds"][0]["epochs"]] == [0, 1, 2]
    assert results["rounds"][0]["sampling"]["share of sampled negatives"]["mined"] > 0
    assert tiny.left_over(out) == []


@pytest.mark.slow
def test_nothing_is_mined_where_no_mined_negatives_are_drawn(tiny: Tiny, out: Path) -> None:
    continue_from(tiny, out, negatives={"mined": 0})
    assert Store(out).open(2).manifest.mined is None
    assert Store(out).open(2).manifest.parent_version == 1


def vectors_of(out: Path, version: int) -> pd.DataFrame:
    """What items of a version have beside their first-order terms, by their ids, [n_items, k].

    What counts beside histories is decided anew by each version, and may be in these terms.
    """
    found = Embeddings.read(Store(out).open(version).items)
    return pd.DataFrame(found.vectors[:, 1:], index=found.ids.to_numpy())


def first_order(out: Path, version: int) -> pd.Series[float]:
    """The first-order terms of a version's items, with those within an item, by their ids."""
    found = Embeddings.read(Store(out).open(version).items)
    return pd.Series(found.vectors[:, 0], index=found.ids.to_numpy())


def test_old_items_keep_their_vectors_and_new_ones_start_from_the_unknown_tokens(
    tiny: Tiny, out: Path, parent: Parent
) -> None:
    """At a learning rate of nothing, a continuation is the parent with more rows."""
    continue_from(tiny, out, learning_rate=1e-30, init="normal")
    child = read_parent(Store(out), 2, config=tiny.config())
    old, new = (each.vocabulary.tokens("item.item_id") for each in (parent, child))
    rows = dict(zip(new.tokens.tolist(), new.rows.tolist(), strict=True))
    assert [rows[token] for token in old.tokens.tolist()] == old.rows.tolist()
    assert len(rows) == len(tiny.tables["items"])
    after = vectors_of(out, 2)
    before = vectors_of(out, 1).loc[old.tokens]
    np.testing.assert_allclose(after.loc[old.tokens], before, atol=1e-5)
    terms = [first_order(out, version).loc[old.tokens] for version in (1, 2)]
    np.testing.assert_allclose(terms[1], terms[0], atol=1e-5)
    fresh = tiny.tables["items"][~tiny.tables["items"]["item_id"].isin(old.tokens)]
    assert len(fresh) == len(rows) - N_OLD_ITEMS
    space = parent.vocabulary.tokens("item.tags")
    tags = pd.DataFrame(parent.vectors[space.rows], index=space.tokens)
    for item, own in zip(fresh["item_id"], fresh["tags"], strict=True):
        expected = parent.vectors[old.oov_row] + tags.loc[own].sum() / len(own) ** 0.5
        np.testing.assert_allclose(after.loc[item], expected, atol=1e-5)


def test_new_items_start_among_the_old_ones(tiny: Tiny, out: Path, parent: Parent) -> None:
    """Nearer to the items of their own group than to others; the groups show in interactions."""
    continue_from(tiny, out, learning_rate=1e-30)
    old = parent.vocabulary.tokens("item.item_id").tokens
    before, after = (vectors_of(out, version).loc[old] for version in (1, 2))
    np.testing.assert_allclose(after, before, atol=1e-5)
    items = Embeddings.read(Store(out).open(2).items)
    ids = items.ids.to_numpy()
    group = np.array([int(token.split()[1]) % 4 for token in ids.tolist()])
    is_new = ~np.isin(ids, old)
    vectors = items.vectors[:, 1:] / np.linalg.norm(items.vectors[:, 1:], axis=1, keepdims=True)
    similar = vectors[is_new] @ vectors[~is_new].T
    same = group[is_new][:, np.newaxis] == group[~is_new]
    assert similar[same].mean() > similar[~same].mean() + 0.2


@pytest.mark.slow
def test_the_new_rows_are_trained(tiny: Tiny, out: Path, parent: Parent) -> None:
    continue_from(tiny, out, refit_on_all=True)
    child = read_parent(Store(out), 2, config=tiny.config())
    space = child.vocabulary.tokens("item.item_id")
    fresh = child.vectors[space.rows[space.rows >= parent.vocabulary.n_rows]]
    assert len(np.unique(fresh, axis=0)) == len(fresh)
    third = run(
        tiny.config(training=SOON), out, frames=tiny.tables, from_version=2
    )  # nothing is new to it but the test
    assert third["data"]["counts"]["validation"] == 0
    assert Store(out).open(3).manifest.parent_version == 2


@pytest.mark.parametrize("by", ["time", "random"])
def test_what_the_parent_has_seen_is_not_held_out(
    tiny: Tiny, parent: Parent, tmp_path: Path, by: str
) -> None:
    config, seen = tiny.config(split={"by": by}), known(parent.trained_on)

    def today(name: str, trained_on: TrainedOn | None = None) -> Prepared:
        return prepare(config, tmp_path / name, frames=tiny.tables, trained_on=trained_on)

    before, after = today("before"), today("after", parent.trained_on)
    moved = pairs(before.frame("validation", "test")) & seen
    assert bool(moved) == (by == "random")  # a time line hides nothing
    for part in ("validation", "test"):
        assert pairs(after.frame(part)) == pairs(before.frame(part)) - seen
    assert pairs(after.frame("train")) == pairs(before.frame("train")) | moved
    n_moved = f"{len(moved):,} interactions would have been held out"
    assert after.lines[-1].startswith(n_moved) == bool(moved)


def test_ids_of_another_type_are_refused(tiny: Tiny, parent: Parent, tmp_path: Path) -> None:
    frames = {
        name: table.assign(user_id=table["user_id"].astype(str)) if "user_id" in table else table
        for name, table in tiny.tables.items()
    }
    with pytest.raises(DataError, match=r"user_id: expected integers, as in version 1, received"):
        prepare(tiny.config(), tmp_path / "today", frames=frames, trained_on=parent.trained_on)


class Interrupting(Reporter):
    """Stops as Ctrl-C does where a bar has come to a step; remembers the lines."""

    def __init__(self, at: str | None = None) -> None:
        super().__init__()
        self.at, self.lines = at, list[str]()

    def say(self, text: str) -> None:
        self.lines.append(text.strip())

    @contextmanager
    def bar(self, name: str, total: int, *, unit: str | None = None) -> Iterator[Advance]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += 1
            if f"{name}: {done}" == self.at:
                raise KeyboardInterrupt

        yield advance


@pytest.mark.slow
def test_an_interrupted_continuation_goes_on(tiny: Tiny, out: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(out, tmp_path / "whole", symlinks=True)
    lines: list[str] = []
    for point in ("mine: 1", "epoch 2 of 2: 1", "export and index: 3", None):
        reporter = Interrupting(point)
        if point is None:
            continue_from(tiny, out, reporter=reporter)
        else:
            with pytest.raises(KeyboardInterrupt):
                continue_from(tiny, out, reporter=reporter)
        lines += reporter.lines
    reporter = Interrupting()
    continue_from(tiny, whole, reporter=reporter)
    epochs = [sum(line.startswith("epoch") for line in said) for said in (lines, reporter.lines)]
    assert epochs[0] == epochs[1]
    for name in ("users", "items"):
        got, expected = (
            Embeddings.read(root / "versions" / "2" / f"{name}.parquet").vectors
            for root in (out, whole)
        )
        np.testing.assert_array_equal(got, expected)
    assert tiny.left_over(out) == []


@pytest.mark.slow
def test_from_another_version_it_is_another_run(tiny: Tiny, out: Path) -> None:
    continue_from(tiny, out)
    with pytest.raises(KeyboardInterrupt):
        continue_from(tiny, out, reporter=Interrupting("epoch 2 of 2: 1"))
    going_on = f"Going on with the interrupted run in {out}"
    for version, expected in ((1, True), (2, False), (None, False)):
        reporter = Interrupting("mine: 1" if version else "epoch 1 of 2: 1")
        with pytest.raises(KeyboardInterrupt):
            run(
                tiny.config(training=SOON),
                out,
                frames=tiny.tables,
                from_version=version,
                reporter=reporter,
            )
        assert (going_on in reporter.lines) == expected


def features(settings: Any, side: str, index: int, **changes: Any) -> RunConfig:
    """The settings with one feature changed; None removes it."""
    chosen = settings.settings()[side]["features"]
    if changes:
        chosen[index] = chosen[index] | changes
    else:
        del chosen[index]
    return settings.config(**{side: {"features": chosen}})  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("side", "index", "changes", "message"),
    [
        ("user", 1, {}, r"user feature 'city' is gone\n"),
        ("user", 1, {"column": "town"}, r"'city' is gone\n  user feature 'town' is new\n"),
        ("user", 1, {"min_count": 3}, r"user feature 'city': min_count was 1, is 3\n"),
        ("user", 2, {"buckets": 4}, r"user feature 'age': buckets was None, is 4\n"),
        (
            "user",
            2,
            {"kind": "categorical"},
            r"user feature 'age': kind was 'numeric', is 'categorical'\n",
        ),
        ("item", 1, {"hash_buckets": 9}, r"item feature 'tags': hash_buckets was None, is 9\n"),
    ],
)
def test_other_features_are_refused_by_name(
    tiny: Tiny, models: Path, side: str, index: int, changes: dict[str, Any], message: str
) -> None:
    config = features(tiny, side, index, **changes)
    expected = r"--from 1: expected the features and dimensions of version 1, received others\n"
    with pytest.raises(ConfigError, match=expected) as raised:
        read_parent(Store(models), 1, config=config)
    raised.match(message)
    raised.match("set them back, or train from the start, without --from")


def test_the_order_of_features_does_not_matter(tiny: Tiny, models: Path, parent: Parent) -> None:
    turned = tiny.settings()["user"]["features"][::-1]
    found = read_parent(Store(models), 1, config=tiny.config(user={"features": turned}))
    np.testing.assert_array_equal(found.vectors, parent.vectors)


def test_another_id_column_and_other_dimensions_are_refused(tiny: Tiny, models: Path) -> None:
    config = tiny.config(model={"embedding_dim": 16}, data={"users": {"id": "account"}})
    with pytest.raises(ConfigError, match=r"model\.embedding_dim was 8, is 16") as raised:
        read_parent(Store(models), 1, config=config)
    raised.match(r"the user id was 'user_id', is 'account'")


def test_a_version_that_is_not_there_is_refused(tiny: Tiny, out: Path, tmp_path: Path) -> None:
    for root, expected in ((out, "versions that exist: 1"), (tmp_path / "no", "publish one first")):
        with pytest.raises(BundleError, match=rf"no such version; {expected}"):
            run(tiny.config(), root, frames=tiny.tables, from_version=7)
    assert not (tmp_path / "no").exists()
    assert tiny.left_over(out) == []


def test_a_damaged_version_is_refused(tiny: Tiny, out: Path) -> None:
    with (out / "versions" / "1" / "vocabulary" / "vocabulary.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleError, match=r"vocabulary/vocabulary\.json: damaged"):
        run(tiny.config(), out, frames=tiny.tables, from_version=1)


def test_a_version_without_a_checkpoint_is_refused(tiny: Tiny, out: Path) -> None:
    store = Store(out)
    bundle = store.open(1)
    fields = [field.name for field in dataclasses.fields(Provenance)]
    with store.staging() as staged:
        shutil.copytree(bundle.path, staged, dirs_exist_ok=True)
        shutil.rmtree(staged / "checkpoint")
        (staged / MANIFEST).unlink()
        store.publish(staged, Provenance(**{n: getattr(bundle.manifest, n) for n in fields}))
    with pytest.raises(BundleError, match="expected the checkpoint that training continues from"):
        read_parent(store, 2, config=tiny.config())


def test_items_that_have_gone_from_the_tables_keep_their_rows(
    tiny: Tiny, out: Path, parent: Parent
) -> None:
    gone = tiny.tables["items"]["item_id"][0]
    items = tiny.tables["items"][1:]
    table = tiny.tables["interactions"]
    frames = {**tiny.tables, "items": items, "interactions": table[table["item_id"] != gone]}
    run(tiny.config(training=SOON), out, frames=frames, from_version=1)
    child = read_parent(Store(out), 2, config=tiny.config())
    old, new = (each.vocabulary.tokens("item.item_id") for each in (parent, child))
    rows = [each.rows[each.tokens == gone].tolist() for each in (old, new)]
    assert rows[0] == rows[1] != []
    assert Embeddings.read(Store(out).open(2).items).rows([gone]).tolist() == [-1]
    row = rows[0]
    np.testing.assert_array_equal(child.vectors[row], parent.vectors[row])  # nothing trains it
