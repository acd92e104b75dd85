from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import Scorer
from pipelines.evaluation.left_out import LeftOut
from pipelines.publishing.promote import Gate, HeldOut
from pipelines.results import Results
from pipelines.training.embed import match_scorer
from serving.version.embeddings import Embeddings
from serving.version.store import Store

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call, Tiny


@pytest.fixture(scope="module")
def final(tiny: Tiny, prepared: Prepared) -> Dataset:
    """What the published versions were trained on."""
    return assemble_dataset(
        tiny.config().schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train", "validation"),
    )


@pytest.fixture(scope="module")
def held_out(prepared: Prepared, final: Dataset) -> HeldOut:
    test = prepared.interactions("test").of(np.arange(len(prepared.users)))
    seen = final.interactions.of(np.arange(len(prepared.users)))
    return HeldOut(dataset=final, test=test, left_out=LeftOut(seen))


@pytest.fixture(scope="module")
def current(published: tuple[Path, Results]) -> Scorer:
    """The scores of the version that is current."""
    bundle = Store(published[0]).open()
    users, items = (Embeddings.read(path).vectors for path in (bundle.users, bundle.items))
    return match_scorer({"user": users, "item": items})


@pytest.fixture
def gate(tiny: Tiny, prepared: Prepared, models: Path) -> Gate:
    return Gate(tiny.config(), prepared, store=Store(models))


def noise(users: NDArray[np.int64]) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    return random.random((60, 40), dtype=np.float32)[users]


def test_a_version_that_is_as_good_as_the_current_one_may_take_its_place(
    gate: Gate, held_out: HeldOut, current: Scorer, models: Path
) -> None:
    verdict = gate.judge(current, held_out, own=[])
    assert verdict["promoted"]
    assert verdict["compared_with"] == Store(models).current()
    assert verdict["new"] == pytest.approx(verdict["current"], abs=1e-6)
    assert verdict["new"] > 0
    assert verdict["margin"] == pytest.approx(0, abs=1e-6)
    assert "of what is held out now, it finds recall@5" in verdict["why"]
    assert f"held out from version {Store(models).current()}" in verdict["why"]


def test_a_worse_one_may_not_unless_it_is_told_so(
    gate: Gate, held_out: HeldOut, tiny: Tiny, prepared: Prepared, models: Path, tmp_path: Path
) -> None:
    verdict = gate.judge(noise, held_out, own=[])
    assert not verdict["promoted"]
    assert verdict["new"] < verdict["current"] - verdict["margin"]
    assert 0 < verdict["margin"] < verdict["current"]
    always = Gate(tiny.config(), prepared, store=Store(models), rule="always")
    assert always.judge(noise, held_out, own=[])["promoted"]
    first = Gate(tiny.config(), prepared, store=Store(tmp_path))
    assert first.judge(noise, held_out, own=[])["promoted"]
    assert gate.judge(noise, held_out, own=[Store(models).current() or 0])["promoted"]
    wide = tiny.config(evaluation={"promotion_margin": 0.99})
    assert Gate(wide, prepared, store=Store(models)).judge(noise, held_out, own=[])["promoted"]


def test_tables_that_are_mixed_up_do_not_pass_by_their_own_measure(
    gate: Gate, held_out: HeldOut, current: Scorer
) -> None:
    """Whoever measures by the new tables alone finds the new version better."""
    items = np.random.default_rng(1).permutation(40)
    mixed = dataclasses.replace(
        held_out,
        test=sparse.csr_array(held_out.test[:, items]),
        left_out=LeftOut(sparse.csr_array(held_out.left_out.seen[:, items])),
    )
    verdict = gate.judge(lambda users: current(users)[:, items], mixed, own=[])
    assert not verdict["promoted"]
    now, before = verdict["why"].split("; ")
    assert now.startswith("of what is held out now")
    assert before.startswith("of what was held out from version")


def test_what_either_was_trained_on_is_not_held_out(
    gate: Gate, held_out: HeldOut, current: Scorer, tiny: Tiny, prepared: Prepared
) -> None:
    everything = assemble_dataset(
        tiny.config().schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train", "validation", "test"),
    )
    known = dataclasses.replace(held_out, dataset=everything, test=held_out.left_out.seen)
    verdict = gate.judge(current, known, own=[])
    assert not verdict["promoted"]
    assert "nothing is held out that neither it nor version" in verdict["why"]


def test_a_current_version_that_cannot_be_read_is_said(
    tiny: Tiny, prepared: Prepared, held_out: HeldOut, current: Scorer, tmp_path: Path, models: Path
) -> None:
    shutil.copytree(models, tmp_path / "models", symlinks=True)
    store = Store(tmp_path / "models")
    with store.open().users.open("ab") as file:
        file.write(b"x")
    verdict = Gate(tiny.config(), prepared, store=store).judge(current, held_out, own=[])
    assert not verdict["promoted"]
    assert "cannot be compared with version" in verdict["why"]
    assert "users.parquet: damaged" in verdict["why"]


@pytest.mark.usefixtures("no_graphs")
def test_a_run_on_interactions_that_are_mixed_up_is_published_but_not_current(
    tiny: Tiny, call: Call, models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "models"
    shutil.copytree(models, out, symlinks=True)
    before = Store(out).current()
    table = tiny.tables["interactions"]
    mixed = table.assign(item_id=table["item_id"].sample(frac=1, random_state=0).to_numpy())
    changed = dataclasses.replace(
        tiny, tables={**tiny.tables, "interactions": mixed.drop_duplicates(["user_id", "item_id"])}
    )
    quick = {"epochs": 1, "rounds": 0, "refit_on_all": False}
    answer = call("run", changed.write(tmp_path, training=quick), "--out", out)
    assert answer.code == 3, answer.out + answer.err
    assert Store(out).versions() == [1, 2, 3]
    assert Store(out).current() == before
    assert f"to switch: fm-recall rollback {out} --to 3" in answer.out
    assert "published, but not current: of what" in answer.err
    answer = call("run", tmp_path / "tiny.toml", "--out", out, "--promote", "perhaps")
    assert answer.code == 2
    assert "expected one of ['not-worse', 'always']" in answer.err
