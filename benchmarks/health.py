"""Measure how soon a server says that it is well while it answers the largest requests it takes.

Run: .venv/bin/python -m benchmarks.health

Publishes a small version to build/fresh-ITEMS the first time. The largest requests are sent by a
process of their own, one after another; this one asks for /healthz and gRPC's health every 20 ms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from benchmarks.serving.__main__ import server
from benchmarks.serving.corpus import Size, publish_corpus
from pipelines.progress import Reporter
from serving.version.store import Store

SECONDS, EVERY_S = 8.0, 0.02
MOST_SOURCES, MOST_CELLS, MOST_RESULTS = 1024, 2**18, 100_000


def largest() -> dict[str, tuple[str, bytes]]:
    """The largest requests by what they are about: a path and a body."""
    length = MOST_CELLS // MOST_SOURCES
    histories = [list(range(n, n + length)) for n in range(MOST_SOURCES)]
    wide = [{"features": {"history": one}} for one in histories]
    few = [{"features": {"history": [n]}} for n in range(MOST_RESULTS // 1000)]
    columns = ["item_id", "category", "brand", "price"]
    narrow = [{"features": {"history": [n]}} for n in range(MOST_CELLS // 4 // 1000)]
    records = [{"item_id": 10**9 + n, "category": n} for n in range(MOST_SOURCES)]
    rows = {"history": histories, "age": [1] * MOST_SOURCES, "city": [1] * MOST_SOURCES}
    where = {"column": "brand", "in": list(range(10_000))}
    texts = [f"{'x' * 50}{n}" for n in range(MOST_CELLS)]
    long = [{"features": {"history": texts[n : n + length]}} for n in range(0, MOST_CELLS, length)]
    u2i = "/v1/retrieve/u2i/batch"
    return {
        "the longest histories": (u2i, _body(sources=wide, k=10)),
        "the most results": (u2i, _body(sources=few, k=1000)),
        "the most columns": (u2i, _body(sources=narrow, k=1000, columns=columns)),
        "the longest texts": (u2i, _body(sources=long, k=10)),
        "the longest filter": (u2i, _body(sources=few, k=10, where=where)),
        "the most fresh items": ("/v1/items", _body(items=records)),
        "TF Serving's longest lists": ("/v1/models/u2i:predict", _body(inputs=rows)),
        "16 MiB of lists": (u2i, b'{"sources": [' + b"[]," * (2**24 // 3 - 20) + b"[]]}"),
        "16 MiB of no use": (u2i, b'{"sources": [' + b'{"id": "' + b"x" * (2**24 - 64) + b'"}]}'),
    }


def _body(**content: Any) -> bytes:
    return json.dumps(content).encode()


def send(rest: str, path: str, body: bytes, seconds: float, answer: Any) -> None:
    """Send a request again and again; puts how many were answered and the last status."""
    count, status, stop = 0, 0, time.monotonic() + seconds
    with httpx.Client(timeout=60) as client:
        while time.monotonic() < stop:
            headers = {"Content-Type": "application/json"}
            status = client.post(rest + path, content=body, headers=headers).status_code
            count += 1
    answer.put((count, status))


def ask(addresses: Mapping[str, str], seconds: float) -> dict[str, list[float]]:
    """The seconds that each kind of health took, asked every 20 ms."""
    channel = grpc.insecure_channel(addresses["grpc"])
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    with httpx.Client(timeout=60) as client:
        kinds: dict[str, Callable[[], Any]] = {
            "/healthz": lambda: client.get(f"{addresses['rest']}/healthz").raise_for_status(),
            "gRPC": lambda: stub.Check(request),
        }
        found: dict[str, list[float]] = {name: [] for name in kinds}
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            for name, call in kinds.items():
                began = time.perf_counter()
                call()
                found[name].append(time.perf_counter() - began)
            time.sleep(EVERY_S)
    channel.close()
    return found


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000, help="published (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="each (%(default)s)")
    given = parser.parse_args()
    models, console = Path("build", f"fresh-{given.items}"), Console()
    if Store(models).current() is None:
        size = Size(items=given.items, users=5_000, all_known=True)
        publish_corpus(models, size, Reporter(Console(stderr=True)))
    context = multiprocessing.get_context("spawn")
    with server(models, "--journal", f"build/health-journal-{time.time_ns()}") as addresses:
        _report(console, "nothing", ask(addresses, given.seconds), "")
        for name, (path, body) in largest().items():
            answer = context.Queue()
            args = (addresses["rest"], path, body, given.seconds + 1, answer)
            process = context.Process(target=send, args=args)
            process.start()
            time.sleep(1)
            times = ask(addresses, given.seconds)
            count, status = answer.get(timeout=120)
            process.join()
            _report(console, name, times, f"{count} x {status}, {len(body) / 2**20:.1f} MiB")
    sys.exit(0)


def _report(console: Console, name: str, times: Mapping[str, list[float]], about: str) -> None:
    for kind, seconds in times.items():
        median, late, worst = np.quantile(np.array(seconds) * 1000, [0.5, 0.99, 1.0])
        text = f"median {median:.1f} ms, 99 of 100 {late:.1f} ms, longest {worst:.1f} ms"
        console.print(f"{name:28} {kind:9} {text}  {about}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
