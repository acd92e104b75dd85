from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serving.retrieval.retriever import Retriever
from serving.server.runtime.loader import Loader, estimate_memory, memory_in_use
from serving.server.runtime.metrics import Metrics
from serving.server.runtime.statuses import Statuses, VersionStatus
from serving.version.store import Store

if TYPE_CHECKING:
    from tests.serving.server.conftest import Shifted

Spoil = Callable[[Path, int], None]


class Loading:
    """A loader of a directory, and what it tells."""

    def __init__(self, root: Path, *, memory_bytes: int | None = None) -> None:
        self.replayed: list[Retriever] = []
        self.statuses, self.metrics = Statuses(), Metrics()
        self.loader = Loader(
            root,
            replay=self.replayed.append,
            statuses=self.statuses,
            metrics=self.metrics,
            memory_bytes=memory_bytes,
        )

    @property
    def states(self) -> list[tuple[int, str]]:
        return [(status.version, status.state) for status in self.statuses.all()]

    @property
    def n_refused(self) -> float | None:
        return self.metrics.registry.get_sample_value("fm_recall_refused_versions_total")


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)


def test_the_current_version_is_prepared_once(
    loading: Loading, shifted: Shifted, tmp_path: Path
) -> None:
    shifted(tmp_path, 0)
    served = loading.loader.prepare(None)
    assert served is not None
    assert served.version == 1
    assert set(served.signatures) == {"user_tower", "item_tower", "u2i", "i2i", "u2u", "i2u"}
    assert set(served.signatures["u2i"]["serving_default"].outputs) == {"ids", "scores"}
    assert loading.replayed == [served.retriever]
    assert loading.states == [(1, "LOADING")]
    assert loading.loader.prepare(served.retriever.bundle.manifest) is None


@pytest.mark.slow
def test_a_version_is_prepared_when_it_becomes_current_and_again_after_a_rollback(
    loading: Loading, shifted: Shifted, tmp_path: Path
) -> None:
    shifted(tmp_path, 0)
    first = loading.loader.prepare(None)
    assert first is not None
    shifted(tmp_path, 1, activate=False)
    assert loading.loader.prepare(first.retriever.bundle.manifest) is None
    Store(tmp_path).activate(2)
    second = loading.loader.prepare(first.retriever.bundle.manifest)
    assert second is not None
    assert second.version == 2
    Store(tmp_path).rollback()
    third = loading.loader.prepare(second.retriever.bundle.manifest)
    assert third is not None
    assert third.version == 1


def test_what_is_loaded_already_is_not_loaded_again_when_it_is_activated_again(
    loading: Loading, shifted: Shifted, tmp_path: Path
) -> None:
    shifted(tmp_path, 0)
    served = loading.loader.prepare(None)
    assert served is not None
    Store(tmp_path).activate(1)
    assert loading.loader.prepare(served.retriever.bundle.manifest) is None


@pytest.mark.parametrize("exists", [True, False])
def test_a_directory_without_a_version_is_no_trouble(tmp_path: Path, exists: bool) -> None:
    loading = Loading(tmp_path if exists else tmp_path / "none")
    assert loading.loader.prepare(None) is None
    assert loading.n_refused == 0
    assert not loading.states


def test_a_damaged_version_is_refused_once_each_time_it_is_made_current(
    loading: Loading,
    shifted: Shifted,
    damage: Spoil,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(tmp_path, shifted(tmp_path, 0, activate=False))
    for _ in range(3):
        assert loading.loader.prepare(None) is None
    assert loading.n_refused == 1
    (status,) = loading.statuses.all()
    assert (status.state, status.error_code) == ("END", "UNKNOWN")
    assert "users.parquet" in status.error_message
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.message == "version refused"
    assert record.exc_info is None
    assert vars(record)["version"] == 1
    assert str(tmp_path) in vars(record)["error"]
    assert str(tmp_path) not in status.error_message
    Store(tmp_path).activate(1)
    assert loading.loader.prepare(None) is None
    assert loading.n_refused == 2


@pytest.mark.slow
def test_what_is_refused_is_tried_again_ever_later_until_it_can_be_used(
    loading: Loading, shifted: Shifted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as where the disk did not answer."""
    now = 0.0
    monkeypatch.setattr("serving.server.runtime.loader.time.monotonic", lambda: now)
    shifted(tmp_path, 0)
    path = tmp_path / "versions" / "1" / "users.parquet"
    path.rename(tmp_path / "away")
    tried = []
    for now in range(0, 4000, 5):
        before = loading.n_refused
        assert loading.loader.prepare(None) is None
        if loading.n_refused != before:
            tried.append(now)
    assert tried == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030, 3630]
    sample = loading.metrics.registry.get_sample_value
    assert sample("fm_recall_load_retries_total") == len(tried) - 1
    (tmp_path / "away").rename(path)
    now = 4230.0
    served = loading.loader.prepare(None)
    assert served is not None
    assert served.version == 1


def test_a_version_that_does_not_fit_into_memory_is_refused_before_it_is_loaded(
    shifted: Shifted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted(tmp_path, 0)
    manifest = Store(tmp_path).open().manifest
    needs, has = estimate_memory(manifest), memory_in_use()
    assert 0 < needs < 2 * sum(record.bytes for record in manifest.files.values())
    assert has > 2**20
    monkeypatch.setattr("serving.server.runtime.loader.memory_in_use", lambda: has)
    for limit, fits in ((has + needs, True), (has + needs - 1, False)):
        loading = Loading(tmp_path, memory_bytes=limit)
        if not fits:
            monkeypatch.setattr("serving.version.bundle.Bundle.verify", None)
        assert (loading.loader.prepare(None) is not None) == fits
    assert "expected it to fit into the memory limit" in loading.statuses.all()[0].error_message


def test_statuses_do_not_forget_the_version_that_answers() -> None:
    statuses = Statuses()
    statuses.set(VersionStatus(1, "AVAILABLE"))
    for version in range(2, 300):
        statuses.set(VersionStatus(version, "END", "UNKNOWN", "damaged"))
    found = statuses.all()
    assert len(found) == 100
    assert found[-1] == VersionStatus(1, "AVAILABLE")
    assert found[0].version == 299


def test_a_version_of_another_format_is_refused(
    loading: Loading, shifted: Shifted, outdate: Spoil, tmp_path: Path
) -> None:
    outdate(tmp_path, shifted(tmp_path, 0, activate=False))
    assert loading.loader.prepare(None) is None
    assert loading.n_refused == 1
    assert loading.states == [(1, "END")]


def test_a_version_whose_saved_model_cannot_be_read_is_refused(
    loading: Loading, shifted: Shifted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever published it may have written nonsense, with the right checksum."""
    version = shifted(tmp_path, 0)
    model = tmp_path / "versions" / str(version) / "models" / "u2i" / "1" / "saved_model.pb"
    model.write_bytes(b"nonsense")
    monkeypatch.setattr("serving.version.bundle.Bundle.verify", lambda self: None)
    assert loading.loader.prepare(None) is None
    assert loading.states == [(1, "END")]
    assert "expected a SavedModel" in loading.statuses.all()[0].error_message


def test_what_nobody_expected_is_refused_with_a_trace(
    shifted: Shifted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def replay(retriever: Retriever) -> None:
        raise ZeroDivisionError("a defect")

    loading = Loading(tmp_path)
    loader = Loader(tmp_path, replay=replay, statuses=loading.statuses, metrics=loading.metrics)
    shifted(tmp_path, 0)
    assert loader.prepare(None) is None
    assert loading.n_refused == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_current_that_is_no_link_is_refused_once_and_read_when_it_is_one(
    loading: Loading, shifted: Shifted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shifted(tmp_path, 0, activate=False)
    (tmp_path / "current").mkdir()
    for _ in range(2):
        assert loading.loader.prepare(None) is None
    assert loading.n_refused == 1
    assert caplog.text.count("models directory unreadable") == 1
    (tmp_path / "current").rmdir()
    Store(tmp_path).activate(1)
    assert loading.loader.prepare(None) is not None
