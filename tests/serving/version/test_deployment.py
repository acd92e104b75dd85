from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.version.deployment import BATCHING, MONITORING, MOUNT, models_config, write_configs
from serving.version.store import Store
from tests.serving.tf_serving_protos import message_class
from tests.serving.version.store_support import MODELS, publish, served


def parse(text: str) -> Any:
    """The models by name."""
    parsed = text_format.Parse(text, ModelServerConfig())
    return {model.name: model for model in parsed.model_config_list.config}


def test_each_model_is_served_at_its_latest_version_from_below_the_mount() -> None:
    models = parse(models_config(["u2i", "item_tower"]))
    assert list(models) == ["item_tower", "u2i"]
    for name, model in models.items():
        assert model.base_path == f"/fm-recall/models/{name}"
        assert model.model_platform == "tensorflow"
        assert model.model_version_policy.latest.num_versions == 1
        assert not model.version_labels


def test_batching_never_pads_lists() -> None:
    parsed = text_format.Parse(BATCHING, message_class("BatchingParameters")())
    assert parsed.pad_variable_length_inputs is False
    assert parsed.max_batch_size.value == 64
    assert parsed.batch_timeout_micros.value == 1000
    assert parsed.max_enqueued_batches.value == 100
    assert parsed.num_batch_threads.value == 4


def test_figures_are_where_prometheus_looks() -> None:
    parsed = text_format.Parse(MONITORING, message_class("MonitoringConfig")())
    assert parsed.prometheus_config.enable
    assert parsed.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_configured_paths_lead_to_the_current_version_where_the_root_is_mounted(
    store: Store,
) -> None:
    for _ in range(2):
        publish(store)
    for version in (1, 2, 1):
        store.activate(version)
        models = parse((store.root / "models.config").read_text())
        assert set(models) == set(MODELS)
        for name, model in models.items():
            folder = store.root / Path(model.base_path).relative_to(MOUNT)
            found = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
            assert max(found) == served(store.root)[name] == version
            saved_model = (folder / str(version) / "saved_model.pb").resolve(strict=True)
            assert saved_model.is_relative_to(store.root.resolve())


def test_models_that_are_gone_are_no_longer_configured(store: Store) -> None:
    bundle = publish(store)
    write_configs(store.root, ["once"])
    store.activate(bundle.version)
    assert set(parse((store.root / "models.config").read_text())) == set(MODELS)


def test_files_to_edit_are_written_once(store: Store) -> None:
    publish(store)
    store.activate(1)
    for name, text in (("batching.config", BATCHING), ("monitoring.config", MONITORING)):
        assert (store.root / name).read_text() == text
        (store.root / name).write_text("mine")
    store.rollback(to=1)
    assert (store.root / "batching.config").read_text() == "mine"
    assert (store.root / "monitoring.config").read_text() == "mine"


def test_what_a_killed_writer_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as context:
        for name in ("replace", "unlink"):
            context.setattr(os, name, refuse)
        with pytest.raises(OSError, match="killed"):
            write_configs(tmp_path, ["u2i"])
    assert [path.name[:15] for path in tmp_path.iterdir()] == [".models.config."]
    write_configs(tmp_path, ["u2i"])
    configs = ["batching.config", "models.config", "monitoring.config"]
    assert sorted(path.name for path in tmp_path.iterdir()) == configs
