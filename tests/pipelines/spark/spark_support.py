"""Servers and commands of their own processes, to run candidates on Spark; ended by their id."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
PATIENCE_S = 120


@dataclass(frozen=True)
class Server:
    """A process and what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, pattern: str) -> str:
        """Wait until it says something; the first group."""
        found = wait_until(lambda: re.search(pattern, self.log.read_text()), self.process)
        return found[1]

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(PATIENCE_S)


@dataclass(frozen=True)
class Cluster:
    """A master and two workers with a core each."""

    master: str
    workers: tuple[Server, Server]


def environment(conf: Path | None = None) -> dict[str, str]:
    """Spark on the loopback interface, and this project where it is not installed."""
    given = {"PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1", "COLUMNS": "200"}
    return os.environ | given | ({} if conf is None else {"SPARK_CONF_DIR": str(conf)})


def start_command(log: Path, *args: object, conf: Path | None = None) -> Server:
    """Start `fm-recall candidates`."""
    command = [
        sys.executable,
        "-c",
        "import pipelines.cli.main; pipelines.cli.main.main()",
        "candidates",
    ]
    return _start([*command, *map(str, args)], log=log, env=environment(conf))


def run_command(log: Path, *args: object) -> str:
    """Run `fm-recall candidates` to its end; what it says."""
    server = start_command(log, *args)
    try:
        code = server.process.wait(PATIENCE_S)
    finally:
        server.stop(signal.SIGKILL)
    text = log.read_text()
    assert code == 0, text
    return text


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start a standalone cluster on free ports of the loopback interface."""
    servers: list[Server] = []

    def start(name: str, *args: str) -> Server:
        import pyspark  # noqa: PLC0415 - an extra

        command = [str(Path(pyspark.__file__).with_name("bin") / "spark-class")]
        command += [f"org.apache.spark.deploy.{name}", "--host", "127.0.0.1"]
        command += ["--port", "0", "--webui-port", "0", *args]
        log = folder / f"{len(servers)}.log"
        servers.append(_start(command, log=log, env=environment()))
        return servers[-1]

    try:
        url = start("master.Master").wait_for(r"Starting Spark master at (spark://\S+)")
        workers = [
            start(
                *("worker.Worker", url, "--cores", "1", "--memory", "1g"),
                *("--work-dir", str(folder / f"work{place}")),
            )
            for place in range(2)
        ]
        for worker in workers:
            worker.wait_for("(Successfully registered with master)")
        yield Cluster(url, (workers[0], workers[1]))
    finally:
        for server in reversed(servers):
            server.stop()


def wait_until(look: Callable[[], T | None], process: subprocess.Popen[bytes]) -> T:
    """Look again and again until there is something, as long as a process lives."""
    end = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert process.poll() is None, "the process has ended"
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.02)
    return found


def _start(command: list[str], *, log: Path, env: Mapping[str, str]) -> Server:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=env)
    return Server(process, log)
