from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from pipelines.publishing.check_bundle import check_bundle
from serving.version.embeddings import Embeddings
from serving.version.manifest import Provenance
from serving.version.store import Store
from towers.errors import BundleError

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


def publish_copy(models: Path, root: Path, damage: Callable[[Path], object]) -> Store:
    """Stage the first version again, with something wrong with it, and publish it if it passes."""
    original, store = Store(models).open(1), Store(root)
    fields = [field.name for field in dataclasses.fields(Provenance)]
    provenance = Provenance(**{name: getattr(original.manifest, name) for name in fields})
    with store.staging() as staged:
        shutil.copytree(original.path, staged, dirs_exist_ok=True)
        (staged / "manifest.json").unlink()
        damage(staged)
        store.publish(staged, provenance, check=check_bundle)
    return store


def make_infinite(staged: Path) -> None:
    users = Embeddings.read(staged / "users.parquet")
    Embeddings(users.table, users.vectors + np.float32(np.inf)).write(staged / "users.parquet")


def rename_input(staged: Path) -> None:
    path = staged / "models" / "i2u" / "1" / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    inputs = saved.meta_graphs[0].signature_def["top_k"].inputs
    inputs["how_many"].CopyFrom(inputs["k"])
    del inputs["k"]
    path.unlink()
    path.write_bytes(saved.SerializeToString())


def lose_variables(staged: Path) -> None:
    shutil.rmtree(staged / "models" / "item_tower" / "1" / "variables")


def test_a_whole_version_is_published(models: Path, tmp_path: Path) -> None:
    store = publish_copy(models, tmp_path / "models", lambda _: None)
    assert store.versions() == [1]
    store.open(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda at: (at / "seen.parquet").unlink(), "the towers failed: .*seen.parquet"),
        (lambda at: (at / "items.parquet").write_bytes(b"PAR1"), "u2i failed: .*items.parquet"),
        (make_infinite, "in direction u2i failed: .*finite"),
        (lose_variables, "the towers failed: .*expected a SavedModel"),
        (
            lambda at: (at / "models/i2u/1/saved_model.pb").write_bytes(b"?"),
            "SavedModel i2u failed",
        ),
        (rename_input, r"SavedModel i2u failed: .*received .*'how_many'"),
    ],
)
def test_what_cannot_be_opened_is_not_published(
    models: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    root = tmp_path / "models"
    with pytest.raises(BundleError, match=f"(?s)version 1: expected .*{message}.*nothing w"):
        publish_copy(models, root, damage)
    assert Store(root).versions() == []
    assert sorted(path.name for path in root.iterdir()) == [".lock", "versions"]


def test_a_file_that_changes_after_it_was_recorded_is_noticed(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = "serving.version.store.write_text_atomic"

    def write_and_damage(path: Path, text: str) -> None:
        path.write_text(text)
        (path.parent / "items.parquet").write_bytes(b"short")

    monkeypatch.setattr(manifest, write_and_damage)
    with pytest.raises(BundleError, match=r"items.parquet: damaged: expected .* bytes, received 5"):
        publish_copy(models, tmp_path / "models", lambda _: None)
    assert Store(tmp_path / "models").versions() == []


@pytest.mark.slow
@pytest.mark.usefixtures("towers_alone")
def test_a_run_whose_version_cannot_be_opened_leaves_nothing_and_can_go_on(
    tiny: Tiny, tmp_path: Path
) -> None:
    def write_without_vectors(embeddings: Embeddings, path: Path) -> None:
        embeddings.table.to_pandas().to_parquet(path)

    changes = {"training": {"epochs": 1, "rounds": 0, "refit_on_all": False}}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(BundleError, match="nothing was pub"):
        patch.setattr(Embeddings, "write", write_without_vectors)
        tiny.run(tmp_path / "models", **changes)
    assert Store(tmp_path / "models").versions() == []
    assert Store(tmp_path / "models").current() is None
    assert not list((tmp_path / "models").glob(".staging*"))
    results = tiny.run(tmp_path / "models", **changes)
    assert results["current_version"] == Store(tmp_path / "models").current() == 1
