from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from pipelines.workers.cluster import Cluster, join, read_cluster
from towers.errors import ConfigError

ADDRESSES = ["a:4711", "b:4711"]


def describe(*, worker: Any = ADDRESSES, index: Any = 1, **changes: Any) -> str:
    body = {"cluster": {"worker": worker}, "task": {"type": "worker", "index": index}}
    return json.dumps(body | changes)


def test_a_cluster_has_addresses_and_a_number() -> None:
    assert read_cluster(describe()) == Cluster(("a:4711", "b:4711"), 1)


@pytest.mark.parametrize("text", [None, "", "{}", describe(worker=["a:4711"], index=0)])
def test_without_others_there_is_no_cluster(text: str | None) -> None:
    assert read_cluster(text) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", r"TF_CONFIG: expected JSON, received '\{'"),
        ("[]", "TF_CONFIG: expected an object"),
        (describe(cluster=["a:1"]), "cluster: expected an object"),
        (describe(cluster={"worker": ADDRESSES, "ps": ["c:1"]}), "cluster: expected workers alone"),
        (describe(worker="a:4711"), "cluster.worker: expected a list"),
        (describe(worker=["a:4711", "b"]), "cluster.worker: expected host:port .* received b;"),
        (describe(worker=["a:4711", "b:70000"]), "received b:70000"),
        (describe(worker=["a:4711"] * 2), "an address of its own .* a:4711 2 times"),
        (describe(task={"type": "chief", "index": 0}), "task.type: expected 'worker', received ch"),
        (describe(index=2), "task.index: expected a number from 0 to 1, .* received 2;"),
        (describe(index="1"), "task.index"),
        (describe(index=True), "task.index"),
    ],
)
def test_what_is_no_cluster_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_cluster(text)
    assert "unset it to train with one worker" in str(raised.value)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"worker 1: expected port {port} to be free"):
            join(Cluster(("a:4711", f"localhost:{port}"), 1), print)


def test_the_page_shows_a_cluster() -> None:
    page = Path(__file__).parents[3] / "docs" / "several-workers.md"
    shown = re.findall(r"TF_CONFIG='(.*?)' ", page.read_text(encoding="utf-8"))
    found = [read_cluster(one) for one in shown]
    assert [one and one.index for one in found] == [0, 1]
