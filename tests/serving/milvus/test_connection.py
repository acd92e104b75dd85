"""A Milvus that is away, silent or refuses; and one that comes back."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from serving.milvus import connection as milvus_connection
from serving.milvus.connection import MilvusConnection
from serving.server.errors import status_of
from towers.errors import ConfigError, IndexUnavailableError


def ask(milvus: MilvusConnection) -> list[str]:
    names: list[str] = milvus.call("list", lambda client, t: client.list_collections(timeout=t))
    return names


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    milvus = MilvusConnection(f"http://127.0.0.1:{port}", token="me:secret", timeout_s=0.5)
    with pytest.raises(
        IndexUnavailableError, match=rf"Milvus at http://127.0.0.1:{port}: list: ex"
    ) as e:
        ask(milvus)
    assert "secret" not in str(e.value)
    assert status_of(e.value).http == 503
    with socket.create_server(("127.0.0.1", port)) as listening:
        with pytest.raises(IndexUnavailableError, match="none a moment ago"):
            ask(milvus)
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody was asked
            listening.accept()


def test_somebody_listens_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        milvus = MilvusConnection(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(IndexUnavailableError, match="check that it runs"):
            ask(milvus)
        assert time.monotonic() - began < 5


def test_a_connection_that_was_refused_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_connection, "LOOK_EVERY_S", 0.0)
    folder = tmp_path / "later"
    milvus = MilvusConnection(str(folder / "m.db"))
    folder.touch()  # a file where the folder is to be
    with pytest.raises(IndexUnavailableError):
        ask(milvus)
    folder.unlink()
    folder.mkdir()
    assert ask(milvus) == []


def test_a_refusal_does_not_hold_up_the_next_call(tmp_path: Path) -> None:
    milvus = MilvusConnection(str(tmp_path / "m.db"))
    with pytest.raises(IndexUnavailableError, match=r"describe: .* received .*none_such"):
        milvus.call("describe", lambda c, t: c.describe_collection("none_such", timeout=t))
    assert ask(milvus) == []


def test_without_pymilvus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ConfigError, match=r"fm-recall\[milvus\]"):
        ask(MilvusConnection("http://127.0.0.1:1"))


@pytest.mark.parametrize("prefix", ["", "1a", "a-b", "x" * 65])
def test_a_prefix_that_begins_no_name(prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix: expected a letter"):
        MilvusConnection("http://127.0.0.1:1", prefix=prefix)


@pytest.mark.parametrize("uri", ["http://me:secret@milvus:19530", "https://me@milvus"])
def test_a_uri_holds_no_password(uri: str) -> None:
    with pytest.raises(ConfigError, match="FM_RECALL_MILVUS_TOKEN") as e:
        MilvusConnection(uri)
    assert "secret" not in str(e.value)


def test_the_token_is_shown_to_milvus(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []

    class Client:
        def __init__(self, uri: str, **given: Any) -> None:
            shown.append({"uri": uri, **given})

    monkeypatch.setattr(milvus_connection.import_pymilvus(), "MilvusClient", Client)
    milvus = MilvusConnection("http://milvus:19530", token="me:secret")
    assert milvus.call("nothing", lambda client, t: 1) == 1
    assert [(one["uri"], one["token"]) for one in shown] == [("http://milvus:19530", "me:secret")]
