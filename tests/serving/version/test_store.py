import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from serving.version.bundle import Bundle
from serving.version.store import Store, open_bundle
from tests.serving.version.store_support import (
    PROVENANCE,
    names,
    publish,
    served,
    write_files,
)
from towers.errors import BundleError


def test_empty_store_has_no_version(store: Store) -> None:
    assert (store.versions(), store.current(), store.next_version()) == ([], None, 1)
    with pytest.raises(BundleError, match="no version is current; publish one first"):
        store.open()
    assert not store.root.exists()


def test_published_version_is_whole_but_not_current(store: Store) -> None:
    bundle = publish(store)
    assert bundle.path == (store.root / "versions" / "1").resolve()
    assert bundle == store.open(1)
    assert bundle.manifest.name == "demo"
    assert bundle.manifest.files.keys() == {
        "items.parquet",
        "models/u2i/1/saved_model.pb",
        "models/user_tower/1/saved_model.pb",
    }
    assert (store.versions(), store.current()) == ([1], None)
    assert names(store.root) == {".lock", "versions"}
    with pytest.raises(BundleError, match="no version is current; versions that exist: 1"):
        store.open()


def test_a_version_that_is_refused_leaves_nothing(store: Store) -> None:
    def refuse(bundle: Bundle) -> None:
        assert (bundle.version, bundle.items.read_text()) == (1, "items of 1")
        raise BundleError("it does not answer")

    with pytest.raises(BundleError, match="it does not answer"), store.staging() as staged:
        write_files(staged, 1)
        store.publish(staged, PROVENANCE, check=refuse)
    assert store.versions() == []
    assert names(store.root) == {".lock", "versions"}
    assert publish(store).version == 1


def test_activate_serves_that_version_everywhere(store: Store) -> None:
    for _ in range(3):
        publish(store)
    store.activate(2)
    assert store.current() == 2
    assert store.open().version == 2
    assert served(store.root) == {"user_tower": 2, "u2i": 2}
    assert {path.name for path in (store.root / "models" / "u2i").iterdir()} == {"1", "2"}
    store.activate(3)
    assert served(store.root) == {"user_tower": 3, "u2i": 3}
    store.activate(1)
    assert served(store.root) == {"user_tower": 1, "u2i": 1}
    assert {path.name for path in (store.root / "models" / "u2i").iterdir()} == {"1"}


def test_activate_unlinks_versions_that_were_deleted(store: Store) -> None:
    for version in (1, 2):
        publish(store)
        store.activate(version)
    shutil.rmtree(store.root / "versions" / "1")
    store.activate(2)
    assert {path.name for path in (store.root / "models" / "u2i").iterdir()} == {"2"}


def test_rollback_goes_down_one_by_one(store: Store) -> None:
    for _ in range(3):
        publish(store)
    store.activate(3)
    assert store.rollback() == 2
    assert (store.current(), served(store.root)["u2i"]) == (2, 2)
    assert store.rollback() == 1
    assert (store.current(), served(store.root)["u2i"]) == (1, 1)
    with pytest.raises(BundleError, match=r"below the current, 1, .* exist: 1, 2, 3"):
        store.rollback()
    assert store.current() == 1


def test_rollback_to_a_named_version_and_back(store: Store) -> None:
    for _ in range(3):
        publish(store)
    store.activate(3)
    assert store.rollback(to=1) == 1
    assert store.rollback(to=3) == 3
    assert store.current() == 3
    with pytest.raises(BundleError, match=r"versions/9: no such version; .* exist: 1, 2, 3"):
        store.rollback(to=9)
    with pytest.raises(BundleError, match="no such version"):
        store.rollback(to=0)


def test_rollback_with_no_current_version(store: Store) -> None:
    publish(store)
    with pytest.raises(BundleError, match="none to roll back from; versions that exist: 1"):
        store.rollback()


def test_rollback_to_a_damaged_version_changes_nothing(store: Store) -> None:
    publish(store)
    damaged = publish(store)
    publish(store)
    store.activate(3)
    damaged.items.write_text("items of 9")
    with pytest.raises(BundleError, match=r"(?s)items\.parquet: damaged.*roll back to version 1"):
        store.rollback()
    assert (store.current(), served(store.root)["u2i"]) == (3, 3)
    assert store.rollback(to=1) == 1


def test_version_after_a_rollback_is_above_all_others(store: Store) -> None:
    for _ in range(3):
        publish(store)
    store.activate(3)
    store.rollback()
    assert publish(store).version == 4


def test_number_of_a_deleted_current_version_is_not_given_again(store: Store) -> None:
    publish(store)
    publish(store)
    store.activate(2)
    shutil.rmtree(store.root / "versions" / "2")
    assert store.next_version() == 3


def test_damaged_version_is_refused_by_name_and_others_still_open(store: Store) -> None:
    publish(store)
    damaged = publish(store)
    store.activate(2)
    damaged.items.unlink()
    with pytest.raises(BundleError, match=r"(?s)versions/2: .*items\.parquet: missing"):
        store.open()
    assert store.open(verify=False).version == 2
    assert store.open(1).version == 1


def test_version_without_a_whole_manifest_cannot_become_current(store: Store) -> None:
    publish(store)
    store.activate(1)
    manifest = publish(store).path / "manifest.json"
    manifest.write_text(manifest.read_text()[:-100])
    with pytest.raises(BundleError, match=r"versions/2/manifest\.json: truncated or damaged"):
        store.activate(2)
    assert (store.current(), served(store.root)["u2i"]) == (1, 1)


def test_renamed_version_is_refused(store: Store) -> None:
    publish(store)
    shutil.copytree(store.root / "versions" / "1", store.root / "versions" / "5")
    with pytest.raises(BundleError, match=r"5/manifest\.json: expected version 5, .* received 1"):
        store.activate(5)


def test_staging_gives_a_number_and_cleans_up(store: Store) -> None:
    with store.staging() as first, store.staging() as second:
        assert (store.version_of(first), store.version_of(second)) == (1, 2)
        assert store.next_version() == 3
        store.publish(second, PROVENANCE)
    assert store.versions() == [2]
    with pytest.raises(ValueError, match="mine"), store.staging() as staged:
        write_files(staged, 3)
        raise ValueError("mine")
    assert names(store.root) == {".lock", "versions"}
    assert store.next_version() == 3


def test_publish_refuses_what_is_not_staged(store: Store, tmp_path: Path) -> None:
    bundle = publish(store)
    with store.staging() as staged:
        pass
    for folder in (tmp_path, bundle.path, staged, tmp_path / staged.name):
        with pytest.raises(BundleError, match=r"expected a folder from staging\(\)"):
            store.publish(folder, PROVENANCE)
    assert store.versions() == [1]


def test_published_version_is_never_overwritten(store: Store) -> None:
    with store.staging() as staged:
        other = store.root / "versions" / "1"
        other.mkdir()
        with pytest.raises(BundleError, match="expected no such version yet"):
            store.publish(staged, PROVENANCE)
    assert list(other.iterdir()) == []


def test_publish_twice_from_one_folder_is_refused(store: Store) -> None:
    with store.staging() as staged:
        store.publish(staged, PROVENANCE)
        with pytest.raises(BundleError):
            store.publish(staged, PROVENANCE)
    assert store.open(1).manifest.files == {}


def test_everything_is_readable_by_others(store: Store) -> None:
    before = os.umask(0o022)
    try:
        publish(store)
        store.activate(1)
    finally:
        os.umask(before)
    modes = {
        path.relative_to(store.root).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in store.root.rglob("*")
    }
    assert set(modes.values()) == {0o755, 0o644}
    assert modes["versions/1"] == 0o755
    assert modes["versions/1/manifest.json"] == 0o644


def test_links_are_relative_and_survive_a_move(store: Store, tmp_path: Path) -> None:
    publish(store)
    publish(store)
    store.activate(2)
    assert (store.root / "current").readlink() == Path("versions/2")
    link = store.root / "models" / "u2i" / "2"
    assert link.readlink() == Path("../../versions/2/models/u2i/2")
    moved = store.root.rename(tmp_path / "moved")
    assert Store(moved).open().version == 2
    assert served(moved) == {"user_tower": 2, "u2i": 2}
    assert Store(moved).rollback() == 1
    assert served(moved) == {"user_tower": 1, "u2i": 1}


def test_current_that_is_no_link_to_a_version_is_refused(store: Store) -> None:
    publish(store)
    (store.root / "current").symlink_to("elsewhere/1")
    with pytest.raises(BundleError, match=r"current: expected a link .* received elsewhere/1"):
        store.current()
    store.activate(1)
    assert store.current() == 1
    (store.root / "current").unlink()
    (store.root / "current").mkdir()
    with pytest.raises(BundleError, match=r"current: expected a link .* received something else"):
        store.open()


def test_open_bundle_takes_a_root_a_version_or_a_copy(store: Store, tmp_path: Path) -> None:
    publish(store)
    publish(store)
    store.activate(1)
    copy = shutil.copytree(store.root / "versions" / "2", tmp_path / "copy")
    assert open_bundle(store.root).version == 1
    assert open_bundle(store.root / "current").version == 1
    assert open_bundle(store.root / "versions" / "2").version == 2
    assert open_bundle(copy).version == 2
    (copy / "items.parquet").unlink()
    with pytest.raises(BundleError, match=re.escape("items.parquet: missing")):
        open_bundle(copy)
    assert open_bundle(copy, verify=False).version == 2
    with pytest.raises(BundleError, match="received neither"):
        open_bundle(tmp_path)


def test_nothing_here_imports_tensorflow() -> None:
    check = "import sys, serving.version.store; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", check], check=True, cwd=root)
