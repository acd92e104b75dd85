"""Load while versions are swapped and items change, each answer held against brute force."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.reliability.outcome import Outcome
from benchmarks.reliability.world import Server, World, serving
from serving.retrieval.retriever import Retriever
from serving.version.store import Store

K, N_CLIENTS = 5, 3
SWAP_S = 0.7
CLOSE = 1e-4
"""How far scores may be apart that count as tied."""


@dataclass
class Mirror:
    """What the server must know: versions, and the changes in the order in which they were made."""

    versions: dict[int, Retriever]
    changes: list[tuple[str, NDArray[np.float32] | None]] = field(default_factory=list)
    """The id and, if it was put in, its vector in each version (towers are the same in all)."""
    acknowledged: int = 0
    """How many of them have been answered."""

    def scores(self, version: int, user: int, *, upto: int) -> dict[Any, float]:
        """The score of every item for a user's row, once so many changes count."""
        retriever = self.versions[version]
        vector = retriever.catalogue("user").vectors[user]
        items = retriever.catalogue("item")
        ids = items.ids(np.arange(items.size)).tolist()
        found = dict(zip(ids, (items.vectors @ vector).tolist(), strict=True))
        for id, put in self.changes[:upto]:
            found.pop(id, None)
            if put is not None:
                found[id] = float(put @ vector)
        return found


def run_load(world: World, folder: Path, *, seconds: float) -> list[Outcome]:
    """Ask, write and swap for a while; then look whether every acknowledged change is there."""
    models = world.copy(folder)
    store = Store(models)
    mirror = Mirror({version: Retriever(store.open(version)) for version in store.versions()})
    asked = Outcome("load", "answers of the named version, beside brute force, while it changes")
    written = Outcome("writes", "acknowledged changes that are there afterwards")
    with serving(models, folder / "journal") as server:
        stop = time.monotonic() + seconds
        clients = [
            threading.Thread(target=_ask, args=(server, mirror, number, stop, asked))
            for number in range(N_CLIENTS)
        ]
        for client in clients:
            client.start()
        swaps = threading.Thread(target=_swap, args=(store, stop))
        swaps.start()
        _write(server, world, mirror, stop=stop)
        for thread in [*clients, swaps]:
            thread.join()
        last = dict(mirror.changes)
        for id, put in last.items():
            status = httpx.get(f"{server.rest}/v1/items/{id}").status_code
            written.check(status == (404 if put is None else 200), f"item {id!r}: {status}")
    return [asked, written]


def _write(server: Server, world: World, mirror: Mirror, *, stop: float) -> None:
    """Put items in and take every third out again, one after another."""
    any_version = next(iter(mirror.versions.values()))
    with httpx.Client(base_url=server.rest, timeout=60) as client:
        number = 0
        while time.monotonic() < stop:
            record = world.record(number)
            id_column = any_version.catalogue("item").id_column
            vector = any_version.change("item", upsert=[record]).vectors[0]
            mirror.changes.append((record[id_column], vector))
            client.post("/v1/items", json={"items": [record]}).raise_for_status()
            mirror.acknowledged = len(mirror.changes)
            if number % 3 == 0:
                mirror.changes.append((record[id_column], None))
                body = {"ids": [record[id_column]]}
                client.post("/v1/items/delete", json=body).raise_for_status()
                mirror.acknowledged = len(mirror.changes)
            number += 1


def _swap(store: Store, stop: float) -> None:
    while time.monotonic() < stop:
        for version in store.versions():
            store.activate(version)
            time.sleep(SWAP_S)


def _ask(server: Server, mirror: Mirror, number: int, stop: float, asked: Outcome) -> None:
    """Ask for one user after another."""
    users = next(iter(mirror.versions.values())).catalogue("user")
    with httpx.Client(base_url=server.rest, timeout=60) as client:
        row = number
        while time.monotonic() < stop:
            before = mirror.acknowledged
            (user,) = users.ids(np.array([row])).tolist()
            answer = client.post("/v1/retrieve/u2i", json={"id": user, "k": K})
            after = len(mirror.changes)
            fault = "" if answer.is_success else f"{answer.status_code}: {answer.text[:200]}"
            if not fault:
                fault = _fault(answer.json(), mirror, row, before=before, after=after)
            asked.check(not fault, fault)
            row = (row + N_CLIENTS) % users.size


def _fault(answer: dict[str, Any], mirror: Mirror, row: int, *, before: int, after: int) -> str:
    """What is wrong with an answer: it is that after none of the changes that may count."""
    found = [(one["id"], one["score"]) for one in answer["results"]]
    for upto in range(before, after + 1):
        scores = mirror.scores(answer["version"], row, upto=upto)
        best = sorted(scores.values(), reverse=True)[:K]
        right = all(abs(scores.get(id, np.inf) - score) < CLOSE for id, score in found)
        if right and np.allclose([score for _, score in found], best, atol=CLOSE):
            return ""
    return f"version {answer['version']}, changes {before} to {after}, user {row}: {found}"
