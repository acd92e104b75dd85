"""A version with a damaged file is refused by the file's name, and the one before is still good."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serving.retrieval.retriever import Retriever
from serving.version.store import Store
from towers.errors import BundleError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.e2e.conftest import Published

FILES = [
    "models/u2i/*/variables/variables.data-*",
    "models/item_tower/*/variables/variables.index",
    "models/u2u/*/saved_model.pb",
    "users.parquet",
    "items.parquet",
    "seen.parquet",
    "vocabulary/tokens-*.parquet",
    "vocabulary/vocabulary.json",
    "checkpoint/model.data-*",
    "metrics.json",
    "report.html",
]


@pytest.fixture
def store(exact: Published, tmp_path: Path) -> Store:
    """A copy of versions 1 and 2, of which 2 is current."""
    store = Store(shutil.copytree(exact.root, tmp_path / "models", symlinks=True))
    store.activate(2)
    return store


def flip_a_byte(path: Path) -> None:
    """Change one bit in the middle of a file, and nothing else."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("pattern", FILES)
def test_version_with_a_flipped_byte_is_refused_by_name_and_rolled_back(
    store: Store, pattern: str
) -> None:
    assert Retriever.open(store.root).bundle.version == 2
    folder = store.root / "versions" / "2"
    damaged = next(folder.glob(pattern))
    flip_a_byte(damaged)
    name = re.escape(damaged.relative_to(folder).as_posix())
    message = rf"(?s)1 file\(s\) differ .*  {name}: damaged: .*roll back to version 1"
    with pytest.raises(BundleError, match=message):
        Retriever.open(store.root)
    assert store.rollback() == 1
    assert Retriever.open(store.root).bundle.version == 1
    with pytest.raises(BundleError, match=name):
        store.rollback(to=2)
    assert store.current() == 1


def test_every_damaged_file_is_named(store: Store) -> None:
    folder = store.root / "versions" / "2"
    names = [next(folder.glob(pattern)).relative_to(folder).as_posix() for pattern in FILES]
    for name in names:
        flip_a_byte(folder / name)
    with pytest.raises(BundleError) as raised:
        Retriever.open(store.root)
    assert [name for name in names if f"  {name}: damaged" not in str(raised.value)] == []


def test_damaged_manifest_is_refused(store: Store) -> None:
    manifest = store.root / "versions" / "2" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"recall": 1.0', '"recall": 0.9', 1))
    assert manifest.read_text() != text
    with pytest.raises(BundleError, match=r"manifest\.json: damaged: expected sha256"):
        Retriever.open(store.root)


def test_after_a_rollback_the_earlier_version_answers(store: Store, exact: Published) -> None:
    user = exact.frames["users"]["user_id"].tolist()[0]
    before = exact.open(version=1).retrieve("u2i", id=user, k=20)
    assert not before.equals(Retriever.open(store.root).retrieve("u2i", id=user, k=20))
    assert store.rollback() == 1
    after = Retriever.open(store.root).retrieve("u2i", id=user, k=20)
    assert after["id"].tolist() == before["id"].tolist()
    latest = {link.name for link in (store.root / "models" / "u2i").iterdir()}
    assert latest == {"1"}
