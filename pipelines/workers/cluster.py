"""The cluster that `TF_CONFIG` describes, and how a process joins it."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from pipelines.workers.workers import ALONE, Workers
from towers.errors import ConfigError

EXAMPLE = (
    '{"cluster": {"worker": ["host0:4711", "host1:4711"]}, "task": {"type": "worker", "index": 0}}'
)
LARGEST_PORT = 65_535


@dataclass(frozen=True)
class Cluster:
    """The workers of a job, and which of them this process is."""

    addresses: tuple[str, ...]
    """Host and port of each worker; worker 0 is the chief."""
    index: int
    """The number of this one."""


def read_cluster(text: str | None) -> Cluster | None:
    """Read the value of `TF_CONFIG`; None where there is none, or where it names one worker.

    Raises:
        ConfigError: it is no description of a cluster of workers.
    """
    if not text:
        return None
    try:
        body = json.loads(text)
    except ValueError as error:
        raise _bad("TF_CONFIG", "JSON", f"{text[:80]!r} ({error})") from None
    body = _mapping("TF_CONFIG", body)
    jobs = _mapping("TF_CONFIG: cluster", body.get("cluster", {}))
    task = _mapping("TF_CONFIG: task", body.get("task", {}))
    if not jobs:
        return None
    if set(jobs) != {"worker"}:
        raise _bad(
            "TF_CONFIG: cluster", "workers alone, of which worker 0 is the chief", list(jobs)
        )
    addresses = _addresses(jobs["worker"])
    if task.get("type") != "worker":
        raise _bad("TF_CONFIG: task.type", "'worker'", task.get("type"))
    index, last = task.get("index"), len(addresses) - 1
    if type(index) is not int or not 0 <= index <= last:
        raise _bad("TF_CONFIG: task.index", f"a number from 0 to {last}, one a process", index)
    return Cluster(addresses, index) if last else None


def join(cluster: Cluster | None, say: Callable[[str], None]) -> Workers:
    """Wait until all workers of the cluster are there; alone without one.

    Has to come before anything is computed with TensorFlow, which takes no part in a cluster later.

    Raises:
        ConfigError: this worker's port is taken, or this process has computed something before.
    """
    if cluster is None:
        return ALONE
    others = [one for number, one in enumerate(cluster.addresses) if number != cluster.index]
    say(f"worker {cluster.index} of {len(cluster.addresses)} waits for {', '.join(others)}")
    _check_port(cluster)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    try:  # of the strategy only the cluster is used: its server, and how it finds who is gone
        tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise ConfigError(
            "TF_CONFIG: expected a process that has not computed anything with TensorFlow yet, "
            "received one that has; train in a process of its own, or unset TF_CONFIG to train "
            "with one worker"
        ) from None
    turn = tf.Variable(0, trainable=False, dtype=tf.int32)
    return Workers(index=cluster.index, count=len(cluster.addresses), _turn=turn)


def _addresses(found: Any) -> tuple[str, ...]:
    """Check the addresses of the workers."""
    where = "TF_CONFIG: cluster.worker"
    if not isinstance(found, list) or not found:
        raise _bad(where, "a list of host:port", found)
    for one in found:
        host, _, port = one.rpartition(":") if isinstance(one, str) else ("", "", "")
        if not host or not port.isdecimal() or not 0 < int(port) <= LARGEST_PORT:
            raise _bad(where, "host:port for each worker", one)
    address, times = Counter(found).most_common(1)[0]
    if times > 1:
        raise _bad(where, "an address of its own for each worker", f"{address} {times} times")
    return tuple(found)


def _check_port(cluster: Cluster) -> None:
    """Refuse a port that another process listens on."""
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ConfigError(
                f"TF_CONFIG: worker {cluster.index}: expected port {port} to be free on this "
                f"machine, received: {error.strerror}; end what listens there, or name another"
            ) from None


def _mapping(where: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _bad(where, "an object", found)
    return found


def _bad(where: str, expected: str, received: object) -> ConfigError:
    shown = received if isinstance(received, str) else json.dumps(received)
    return ConfigError(
        f"{where}: expected {expected}, received {shown}; set it to something like {EXAMPLE}, or "
        "unset it to train with one worker"
    )
