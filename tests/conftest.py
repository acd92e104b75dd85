"""What every test shares: the environment that TensorFlow reads, and Hypothesis without a clock."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.examples import INNER_LOOP, INNER_LOOP_SHARE, WHOLE
from towers.environment import prepare

prepare()  # before a test module imports TensorFlow

TESTS = Path(__file__).parent
WITH_PROCESSES = (TESTS / "serving/server", TESTS / "pipelines/workers", TESTS / "docs")
"""Tests that start servers and processes, which what else the machine does can hold up."""

MAKERS = tuple(
    TESTS / name
    for name in (
        "e2e/test_bundle_damage.py",
        "pipelines/cli/test_main.py",
        "e2e/test_recall_gate.py",
        "serving/server/api/test_fresh_routes.py",
    )
)
"""Files that publish what many others read: each begins while other processes do something else."""

LONG = (TESTS / "towers/test_two_tower.py", TESTS / "towers/test_interactions.py")
"""Files that take many seconds, none in a slow test, and would come last by their names."""

# An example's time depends on what else the machine does; a deadline would fail at random.
settings.register_profile("whole", deadline=None, max_examples=WHOLE)
settings.register_profile(INNER_LOOP, deadline=None, max_examples=WHOLE // INNER_LOOP_SHARE)


def pytest_configure(config: pytest.Config) -> None:
    """Try fewer examples where slow tests are left out, as `make test-fast` leaves them out."""
    leaves_out_slow = "not slow" in config.getoption("markexpr")
    settings.load_profile(INNER_LOOP if leaves_out_slow else "whole")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that others wait for, then with slow ones, so that processes end together.

    A test with processes that fails is tried once more; pytest says which ("1 rerun").
    """
    with_slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {path: place for place, path in enumerate(MAKERS)}
    early = with_slow | set(LONG)
    items.sort(key=lambda item: (places.get(item.path, len(places)), item.path not in early))
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in WITH_PROCESSES):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what stays: modules and tests, a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _without_waiting_for_the_disk() -> Iterator[None]:
    """What is waited for, and when, is tested with the functions that do it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def models_loaded_once() -> Iterator[None]:
    """Load the SavedModels of towers once a process."""
    from tests.loaded_models import loaded_once  # noqa: PLC0415 - TensorFlow, which few need

    with loaded_once():
        yield
