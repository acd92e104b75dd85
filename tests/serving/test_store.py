import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from serving.bundle import Bundle
from serving.manifest import Provenance
from serving.store import Store, open_bundle
from towers.errors import BundleError

MODELS = ("user_tower", "u2i")
PROVENANCE = Provenance(
    name="demo",
    schema_fingerprint="0123456789abcdef",
    config={"seed": 0},
    parent_version=None,
    mined=None,
    index={},
    metrics={},
)
PUBLISHER = """
import os, sys, time
from pathlib import Path
from serving.manifest import Provenance
from serving.store import Store

def stop(*_):
    print("stopped", flush=True)
    time.sleep(60)

root, step = sys.argv[1:]
provenance = Provenance(name="child", schema_fingerprint="", config={}, parent_version=None,
                        mined=None, index={}, metrics={})
store = Store(Path(root))
with store.staging() as staged:
    (staged / "file").write_text("content")
    if step in ("fsync", "replace", "rename"):
        setattr(os, step, stop)
    print(store.publish(staged, provenance).version, flush=True)
    if step == "published":
        stop()
"""


def write_files(folder: Path, version: int) -> None:
    (folder / "items.parquet").write_text(f"items of {version}")
    for model in MODELS:
        (folder / "models" / model / str(version)).mkdir(parents=True)
        (folder / "models" / model / str(version) / "saved_model.pb").write_text(model)


def publish(store: Store) -> Bundle:
    with store.staging() as staged:
        write_files(staged, store.version_of(staged))
        return store.publish(staged, PROVENANCE)


def served(root: Path) -> dict[str, int]:
    """What TF Serving serves: the highest number below the folder of each model."""
    latest: dict[str, int] = {}
    for path in (root / "models").glob("*/*/saved_model.pb"):
        model, version = path.parts[-3:-1]
        if version.isdecimal():
            latest[model] = max(int(version), latest.get(model, 0))
    return latest


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def start_publisher(root: Path, step: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(root), step],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "."},
    )


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for, and when, is tested with the functions that do it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store in which nothing has been published, and whose folder does not exist yet."""
    return Store(tmp_path / "deep" / "root")


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


def test_threads_that_publish_at_once_get_versions_of_their_own(store: Store) -> None:
    barrier, published = threading.Barrier(6), []

    def work() -> None:
        barrier.wait()
        published.append(publish(store).version)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(published) == store.versions() == [1, 2, 3, 4, 5, 6]
    for version in published:
        assert store.open(version).items.read_text() == f"items of {version}"


def test_processes_that_publish_at_once_get_versions_of_their_own(store: Store) -> None:
    publishers = [start_publisher(store.root, "") for _ in range(3)]
    published = [int(publisher.communicate(timeout=60)[0]) for publisher in publishers]
    assert sorted(published) == store.versions() == [1, 2, 3]
    assert names(store.root) == {".lock", "versions"}


class Killed(BaseException):
    """Stands for the end of the process: neither handled nor cleaned up after."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the `step`-th change of the file system on, let no change happen."""
    calls = count(1)

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if next(calls) >= step:
                raise Killed
            return real(*args, **kwargs)

        return call

    for name in ("fsync", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


def check_whole(store: Store) -> None:
    """Every version, the current one and what TF Serving serves are whole; work goes on."""
    for version in store.versions():
        store.open(version)
    assert store.open().version in store.versions()
    assert set(served(store.root).values()) <= set(store.versions())
    before = store.versions()
    bundle = publish(store)
    assert store.versions() == [*before, bundle.version]
    store.activate(bundle.version)
    assert set(served(store.root).values()) == {bundle.version}
    assert names(store.root) == {".lock", "current", "models", "versions"}
    assert {link.name for link in store.root.glob("models/*/*")} == {
        str(version) for version in store.versions()
    }


def test_publisher_that_dies_at_any_step_leaves_the_whole_or_nothing(tmp_path: Path) -> None:
    seen = set()
    for step in count(1):
        store = Store(tmp_path / str(step))
        publish(store)
        store.activate(1)
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at(step, monkeypatch)
            try:
                publish(store)
                store.activate(2)
                finished = True
            except Killed:
                finished = False
        seen.add((tuple(store.versions()), store.current()))
        check_whole(store)
        if finished:
            break
    assert seen == {((1,), 1), ((1, 2), 1), ((1, 2), 2)}


def test_rollback_that_dies_at_any_step_is_finished_by_another(tmp_path: Path) -> None:
    seen = set()
    for step in count(1):
        store = Store(tmp_path / str(step))
        for _ in range(2):
            publish(store)
        store.activate(2)
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at(step, monkeypatch)
            try:
                store.rollback()
                finished = True
            except Killed:
                finished = False
        seen.add(store.current())
        if store.current() == 2:
            assert store.rollback() == 1
        assert (store.current(), served(store.root)) == (1, {"user_tower": 1, "u2i": 1})
        check_whole(store)
        if finished:
            break
    assert seen == {1, 2}


@pytest.mark.parametrize("step", ["fsync", "replace", "rename", "published"])
def test_killed_process_leaves_the_whole_or_nothing(store: Store, step: str) -> None:
    publisher = start_publisher(store.root, step)
    assert publisher.stdout is not None
    try:
        while publisher.stdout.readline() != "stopped\n":
            assert publisher.poll() is None
        whole = [1] if step == "published" else []
        assert store.versions() == whole
        assert publish(store).version == 2  # the number and the folder of a living one are its own
        assert (store.root / ".staging-1").exists() == (step != "published")
    finally:
        publisher.kill()
        publisher.communicate()
    assert store.versions() == [*whole, 2]
    with store.staging() as staged:
        assert store.version_of(staged) == 3
        assert names(store.root) == {".lock", "versions", staged.name, f"{staged.name}.lock"}
    for version in store.versions():
        store.open(version)


def test_nothing_here_imports_tensorflow() -> None:
    check = "import sys, serving.store; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", check], check=True, cwd=root)
