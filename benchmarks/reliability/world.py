"""What campaigns are run on: a models directory with two versions, and a server on a copy of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from serving.version.bundle import Bundle
from serving.version.embeddings import Embeddings
from serving.version.manifest import Provenance
from serving.version.store import Store

START_S = 120
MAIN = "from pipelines.cli.main import main; main()"


@dataclass(frozen=True)
class World:
    """A models directory, which no campaign changes, and records that fit it."""

    models: Path
    record: Callable[[int], dict[str, Any]]
    """A fresh item by a number."""

    def copy(self, folder: Path) -> Path:
        """The models directory once more, to be changed."""
        shutil.copytree(self.models, folder / "models", symlinks=True)
        return folder / "models"


def publish_shifted(models: Path) -> int:
    """Publish the first version again, with each item's vector at its neighbour; not current."""
    store = Store(models)
    base = store.open(store.versions()[0]).path
    with store.staging() as staged:
        version = store.version_of(staged)
        for path in base.iterdir():
            if path.name in {"manifest.json", "models", "index"}:
                continue
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, staged / path.name)
        for side in ("user", "item"):
            source = base / "models" / f"{side}_tower" / base.name
            shutil.copytree(source, staged / "models" / f"{side}_tower" / str(version))
        items = Embeddings.read(base / "items.parquet")
        shifted = Embeddings(items.table, np.roll(items.vectors, 1, axis=0))
        shifted.write(staged / "items.parquet")
        manifest = Bundle.read(base, verify=False).manifest
        names = [field.name for field in dataclasses.fields(Provenance)]
        store.publish(staged, Provenance(**{name: getattr(manifest, name) for name in names}))
    return version


@dataclass
class Server:
    """A server process."""

    process: subprocess.Popen[str]
    rest: str
    grpc: str

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(models: Path, journal: Path, *options: str) -> Iterator[Server]:
    """Serve on free ports; yields once a version is loaded."""
    command = [sys.executable, "-c", MAIN, "serve", str(models), "--journal", str(journal)]
    command += ["--port", "0", "--grpc-port", "0", "--poll", "0.1", "--log-format", "json"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    drain: subprocess.Popen[bytes] | None = None
    try:
        started = _started(process)
        server = Server(process, started["rest"], started["grpc"])
        with journal.with_suffix(".log").open("ab") as log:
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=log)
        if process.stderr is not None:
            process.stderr.close()  # the other process has it
        _wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        process.wait()
        if drain is not None:
            drain.wait()


def _started(process: subprocess.Popen[str]) -> dict[str, str]:
    lines = []
    for line in process.stderr or ():
        lines.append(line)
        if line.startswith("{") and (found := json.loads(line)).get("message") == "started":
            return {name: str(found[name]) for name in ("rest", "grpc")}
    raise RuntimeError(f"the server ended before it listened:\n{''.join(lines)}")


def _wait_until_ready(server: Server) -> None:
    stop = time.monotonic() + START_S
    while httpx.get(f"{server.rest}/readyz").status_code != httpx.codes.OK:
        if time.monotonic() > stop:
            raise TimeoutError(f"no version was loaded within {START_S} s")
        time.sleep(0.05)
