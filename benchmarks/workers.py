"""Measure what one and several processes of a server answer, and the processor's time of each.

Run: .venv/bin/python -m benchmarks.workers

Publishes a small version to build/fresh-ITEMS the first time. Clients are processes of their own,
with a connection for each request in flight; where they share the cores with the server, the
processor's time a request says more than requests a second do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks.serving.__main__ import server
from benchmarks.serving.corpus import Size, publish_corpus
from benchmarks.serving.in_process import make_queries
from pipelines.progress import Reporter
from serving.version.store import Store

N_CLIENTS, K = 8, 100
TICK = os.sysconf("SC_CLK_TCK")


def processor_seconds(ports: set[int]) -> float:
    """The processor's time so far of all processes that listen on some ports; Linux only."""
    nodes = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) in ports:
            nodes.add(f"socket:[{fields[9]}]")
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = {str(file.readlink()) for file in (process / "fd").iterdir()}
            if links & nodes:
                fields = (process / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / TICK
        except OSError:
            continue
    return total


def ask(rest: str, bodies: list[bytes], seconds: float, answer: Any) -> None:
    """Ask without a pause; puts how many were answered."""
    count, stop = 0, time.monotonic() + seconds
    with httpx.Client(timeout=60, headers={"Content-Type": "application/json"}) as client:
        while time.monotonic() < stop:
            body = bodies[count % len(bodies)]
            client.post(f"{rest}/v1/retrieve/u2i", content=body).raise_for_status()
            count += 1
    answer.put(count)


def measure(
    models: Path, *, workers: int, seconds: float, bodies: list[bytes]
) -> tuple[int, float]:
    """How many requests were answered, and the processor's seconds that they took."""
    context = multiprocessing.get_context("spawn")
    journal = f"build/workers-journal-{time.time_ns()}"
    options = ["--workers", str(workers)] if workers > 1 else []
    with server(models, "--journal", journal, *options) as addresses:
        rest = addresses["rest"]
        ports = {int(rest.rpartition(":")[2])}
        _wait_for(rest, workers)
        answer = context.Queue()
        args = (rest, bodies, seconds, answer)
        clients = [context.Process(target=ask, args=args) for _ in range(N_CLIENTS)]
        before = processor_seconds(ports)
        for client in clients:
            client.start()
        counts = [answer.get(timeout=seconds + 120) for _ in clients]
        spent = processor_seconds(ports) - before
        for client in clients:
            client.join()
    return sum(counts), spent


def _wait_for(rest: str, workers: int) -> None:
    """Wait until all processes have a version."""
    stop = time.monotonic() + 300
    while time.monotonic() < stop:
        text = httpx.get(f"{rest}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("fm_recall_version{")]
        ready = [line for line in lines if not line.endswith(" 0.0")]
        if workers == 1 or len(ready) == workers:
            return
        time.sleep(0.5)
    raise TimeoutError("not all processes have loaded a version")


def main() -> None:
    """Measure in turn, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000, help="published (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="each (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2, help="each in turn (%(default)s)")
    given = parser.parse_args()
    models, console = Path("build", f"fresh-{given.items}"), Console()
    if Store(models).current() is None:
        size = Size(items=given.items, users=5_000, all_known=True)
        publish_corpus(models, size, Reporter(Console(stderr=True)))
    queries = make_queries(200, n_items=given.items)
    each = [{name: values[n] for name, values in queries.items()} for n in range(200)]
    bodies = [json.dumps({"features": one, "k": K}).encode() for one in each]
    for _ in range(given.rounds):
        for workers in given.workers:
            count, spent = measure(models, workers=workers, seconds=given.seconds, bodies=bodies)
            text = f"{workers} processes: {count / given.seconds:,.0f} requests/s, "
            text += f"{spent / count * 1000:.2f} ms of processor a request, "
            text += f"{spent / given.seconds:.2f} cores busy"
            console.print(text, highlight=False)


if __name__ == "__main__":
    main()
