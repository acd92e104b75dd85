"""Kills while it writes, a disk that is full, and a flipped bit in every file of a version."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
from pathlib import Path

import httpx

from benchmarks.reliability.outcome import Outcome
from benchmarks.reliability.world import World, serving
from serving.retrieval.fresh.entry import list_drafts
from serving.retrieval.fresh.journal import Journal
from serving.version.store import Store
from towers.errors import BundleError, StorageError

ROOM = 60_000
"""Bytes that the full disk of a campaign has."""
MOST, BEYOND = 10_000, 20
"""Changes that are written to it at most, and after how many that it refuses there are no more."""


def run_kills(world: World, folder: Path, *, kills: int) -> Outcome:
    """Kill a server while it writes, start it again, and look for what it had acknowledged."""
    outcome = Outcome("kills", "acknowledged changes that outlive a kill of the server")
    models, acknowledged = world.copy(folder), list[int]()
    for number in range(kills):
        with (
            serving(models, folder / "journal") as server,
            httpx.Client(base_url=server.rest, timeout=60) as client,
        ):
            timer = threading.Timer(0.3 + 0.1 * (number % 5), server.kill)
            timer.start()
            try:
                while True:
                    record = world.record(len(acknowledged) + 10_000 * number)
                    client.post("/v1/items", json={"items": [record]}).raise_for_status()
                    acknowledged.append(len(acknowledged) + 10_000 * number)
            except httpx.HTTPError:
                timer.join()
        with Journal(folder / "journal") as journal:
            kept = {entry.id for entry in journal.entries()}
        for one in acknowledged:
            id = world.record(one)["item_id"]
            outcome.check(id in kept, f"item {id!r} after kill {number + 1}")
    return outcome


def run_disk_full(world: World, folder: Path, *, tries: int) -> Outcome:
    """Write until the disk is full, and beyond: what was refused is not there, the rest is."""
    outcome = Outcome("full disk", "changes that are kept if acknowledged, and only then")
    for number in range(tries):
        place = folder / str(number)
        place.mkdir(parents=True)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            _fill(world, place, write, room=ROOM + 1000 * number)
        os.close(write)
        with os.fdopen(read) as said:
            lines = said.read().splitlines()
        os.waitpid(child, 0)
        with Journal(place) as journal:
            kept = {str(entry.id) for entry in journal.entries()}
        acknowledged = {id.removeprefix("+") for id in lines if id.startswith("+")}
        refused = {id.removeprefix("-") for id in lines if id.startswith("-")}
        for id in sorted(acknowledged | refused):
            outcome.check((id in kept) == (id in acknowledged), f"item {id}, room {number}")
        outcome.check(bool(refused), f"the disk did not become full in room {number}")
    return outcome


def _fill(world: World, place: Path, write: int, *, room: int) -> None:
    """In a process of its own, whose files may not grow beyond `room`; never returns."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Journal(place) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        refused = 0
        for number in range(MOST):
            if refused == BEYOND:
                break
            record = world.record(number)
            drafts = list_drafts("item", id_column="item_id", upsert=[record])
            try:
                journal.append([drafts])
                mark = "+"
            except StorageError:
                mark = "-"
                refused += 1
            os.write(write, f"{mark}{record['item_id']}\n".encode())
    os._exit(0)


def run_flips(world: World, folder: Path, *, flips: int) -> Outcome:
    """Flip a bit at some places of every file of a version: it is refused, by the file's name."""
    outcome = Outcome("flipped bits", "damaged files of a version that are refused by name")
    models = world.copy(folder)
    store = Store(models)
    version = store.versions()[0]
    path = store.open(version).path
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        size = file.stat().st_size
        for place in sorted({size * n // flips for n in range(flips)} if size else ()):
            _flip(file, place)
            try:
                store.open(version)
                fault = "opened"
            except BundleError as error:
                fault = "" if file.name in str(error) else f"refused without its name: {error}"
            outcome.check(not fault, f"{file.relative_to(path)} at {place}: {fault}")
            _flip(file, place)
    store.open(version)  # whole again
    shutil.rmtree(models)
    return outcome


def _flip(file: Path, place: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(place)
        (byte,) = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ 1]))
