from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.cli.serve import open_milvus
from towers.errors import BundleError, ConfigError


def test_publish_says_what_it_cannot_do(tmp_path: object) -> None:
    refused = CliRunner().invoke(app, ["publish", str(tmp_path), "--to", "elsewhere"])
    assert isinstance(refused.exception, ConfigError)
    assert str(refused.exception) == "--to: expected 'milvus', received 'elsewhere'"
    empty = CliRunner().invoke(app, ["publish", str(tmp_path), "--uri", f"{tmp_path}/m.db"])
    assert isinstance(empty.exception, BundleError)


@pytest.mark.parametrize(
    ("index", "uri", "message"),
    [
        ("scann", None, "--index: expected 'own' or 'milvus', received 'scann'"),
        ("milvus", None, "received --index milvus without a --uri"),
        ("own", "http://127.0.0.1:1", "received --index own with a --uri"),
    ],
)
def test_an_index_and_its_uri_go_together(index: str, uri: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_milvus(index, uri, prefix="fm_recall", timeout_s=10)


def test_own_index_needs_nothing_opened() -> None:
    assert open_milvus("own", None, prefix="fm_recall", timeout_s=10) is None
    assert open_milvus("milvus", "http://127.0.0.1:1", prefix="fm_recall", timeout_s=10)
