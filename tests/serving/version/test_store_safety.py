"""Many publishers at once, and publishers that die: readers see the whole or nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from serving.version.store import Store
from tests.serving.version.store_support import (
    names,
    publish,
    served,
    start_publisher,
)

LATER = ("replace", "rename", "published")
"""What a publisher does after it has written its files to disk."""


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


@pytest.mark.slow
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
    configs = {"models.config", "batching.config", "monitoring.config"}
    assert names(store.root) == {".lock", "current", "models", "versions"} | configs
    assert {link.name for link in store.root.glob("models/*/*")} == {
        str(version) for version in store.versions()
    }


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "step", ["fsync", *(pytest.param(at, marks=pytest.mark.slow) for at in LATER)]
)
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
