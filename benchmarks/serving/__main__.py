"""Measure serving: the retriever beside the bare index, and a server over gRPC and REST.

Run: .venv/bin/python -m benchmarks.serving

Publishes a version of a million items of 65 coordinates to build/serving the first time (two
minutes), then prints what is measured. Clients run in this process, the server in another; on a
machine with two cores they share them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks.serving import clients
from benchmarks.serving.clients import Load
from benchmarks.serving.corpus import Size, publish_corpus
from benchmarks.serving.in_process import K, make_queries, measure, percentiles
from pipelines.progress import Reporter
from serving.retrieval.retriever import Retriever
from serving.version.store import Store

SINGLES, STEADY, RATE, SECONDS = 500, 2000, 200, 5
START_S = 600


@contextmanager
def server(models: Path, *options: str) -> Iterator[dict[str, str]]:
    """Run `fm-recall serve` on free ports; yields its addresses once a version is loaded."""
    code = "from pipelines.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", str(models), "--port", "0", "--grpc-port", "0"]
    command += ["--log-format", "json", *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        addresses = _addresses(process)
        stop = time.monotonic() + START_S
        while not _is_ready(addresses["rest"]):
            if time.monotonic() > stop:
                raise TimeoutError(f"no version was loaded within {START_S} s")
            time.sleep(0.2)
        yield addresses
    finally:
        process.terminate()
        process.wait()


def _is_ready(rest: str) -> bool:
    """Whether a server answers, and has a version."""
    try:
        return httpx.get(f"{rest}/readyz").status_code == httpx.codes.OK
    except httpx.TimeoutException:  # it is busy loading
        return False


def _addresses(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read the log up to the line that says where the server listens."""
    for line in process.stderr or ():
        if line.startswith("{") and (found := json.loads(line)).get("message") == "started":
            return {"rest": found["rest"], "grpc": found["grpc"]}
    raise RuntimeError("the server ended before it listened")


async def over_grpc(addresses: Mapping[str, str], features: Mapping[str, Any]) -> None:
    """Print what clients get over gRPC."""
    requests = clients.predict_requests(features)
    async with clients.grpc_calls(addresses["grpc"], requests) as call:
        await clients.one_at_a_time(call, 100)
        show("gRPC, one at a time", percentiles(await clients.one_at_a_time(call, SINGLES)))
        steady = await clients.steadily(call, rate=RATE, n=STEADY)
        show(f"gRPC, {RATE} requests/s", percentiles(steady))
        for number in (1, 8, 64):
            cpu = _cpu_seconds(addresses)
            load = await clients.at_once(call, clients=number, seconds=SECONDS)
            show(f"gRPC, {number} clients", _loaded(load, cpu=_cpu_seconds(addresses) - cpu))


async def over_rest(addresses: Mapping[str, str], features: Mapping[str, Any]) -> None:
    """Print what clients get over REST."""
    for name, path, bodies in (
        ("TF Serving's REST", "/v1/models/u2i:predict", clients.predict_bodies(features)),
        ("retrieval API", "/v1/retrieve/u2i", clients.retrieve_bodies(features, k=K)),
    ):
        async with clients.rest_calls(addresses["rest"], path, bodies) as call:
            await clients.one_at_a_time(call, 100)
            show(f"{name}, one at a time", percentiles(await clients.one_at_a_time(call, SINGLES)))
            load = await clients.at_once(call, clients=64, seconds=SECONDS)
            show(f"{name}, 64 clients", _loaded(load, cpu=None))


async def without_batching(addresses: Mapping[str, str], features: Mapping[str, Any]) -> None:
    """Print what many clients get when requests are computed one by one."""
    requests = clients.predict_requests(features)
    async with clients.grpc_calls(addresses["grpc"], requests) as call:
        await clients.one_at_a_time(call, 100)
        load = await clients.at_once(call, clients=64, seconds=SECONDS)
        show("gRPC, 64 clients, batches of 1", _loaded(load, cpu=None))


def show(what: str, figure: str) -> None:
    """Print a line of the table."""
    print(f"{what:42} {figure}", flush=True)


def _loaded(load: Load, *, cpu: float | None) -> str:
    text = f"{load.rate:,.0f} requests/s, {percentiles(load.seconds)}"
    if cpu is None:
        return text
    return f"{text}, {len(load.seconds) / cpu:,.0f} requests per CPU second of the server"


def _cpu_seconds(addresses: Mapping[str, str]) -> float:
    text = httpx.get(f"{addresses['rest']}/metrics").text
    line = next(x for x in text.splitlines() if x.startswith("process_cpu_seconds_total"))
    return float(line.split()[-1])


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=8192)
    parser.add_argument("--models", type=Path, default=Path("build/serving/models"))
    given = parser.parse_args()
    if Store(given.models).current() is None:
        size = Size(items=given.items, users=max(1000, given.items // 10))
        publish_corpus(given.models, size, Reporter(Console(stderr=True)))
    show("CPUs", str(len(os.sched_getaffinity(0))))
    retriever = Retriever.open(given.models)
    for what, figure in measure(retriever, n=given.queries):
        show(what, figure)
    features = make_queries(500, n_items=retriever.catalogue("item").size, seed=2)
    del retriever
    with server(given.models) as addresses:
        asyncio.run(over_grpc(addresses, features))
        asyncio.run(over_rest(addresses, features))
    with server(given.models, "--max-batch", "1") as addresses:
        asyncio.run(without_batching(addresses, features))


if __name__ == "__main__":
    main()
