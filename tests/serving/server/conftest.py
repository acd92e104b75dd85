"""A models directory for the server's tests, and a core on it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from serving.atomic import symlink_atomic
from serving.retrieval.fresh.journal import Journal
from serving.server.runtime.server_core import ServerCore
from serving.server.runtime.settings import ServerSettings
from serving.version.bundle import Bundle
from serving.version.embeddings import Embeddings
from serving.version.manifest import FORMAT, MANIFEST, Provenance
from serving.version.store import Store
from tests.made_once import made_once
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from tests.serving.conftest import Publish, World

Running = Callable[..., AbstractAsyncContextManager[ServerCore]]
Shifted = Callable[..., int]


@pytest.fixture(scope="session")
def published(publish: Publish, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory that no test changes: version 1, exact, with the models of all
    directions."""

    def make(root: Path) -> None:
        publish(root, "exact", ["u2i", "i2i", "u2u", "i2u"])

    return made_once(tmp_path_factory, "served-world", make)


@pytest.fixture
def running(published: Path) -> Running:
    """`async with running(max_k=5) as core`: a core on `published`, or on `models=`."""

    @asynccontextmanager
    async def running(
        models: Path = published, *, journal: Journal | None = None, **settings: Any
    ) -> AsyncIterator[ServerCore]:
        quick: dict[str, Any] = {"timeout_s": PATIENCE_S, "poll_s": 0.05, "port": 0, "grpc_port": 0}
        quick |= settings
        async with ServerCore(models, settings=ServerSettings(**quick), journal=journal) as core:
            await core.versions.settled()
            yield core

    return running


@pytest.fixture
def shifted(published: Path, world: World) -> Shifted:
    """`shifted(root, 3)`: publish a version in which an item has the vector of the item 3 rows
    before it, so that its answers are known and no other version's. Answers its number."""

    def publish(root: Path, shift: int, *, activate: bool = True) -> int:
        store, base = Store(root), published / "versions" / "1"
        with store.staging() as staged:
            version = store.version_of(staged)
            for name in ("users.parquet", "seen.parquet"):
                shutil.copy(base / name, staged / name)
            shutil.copytree(base / "vocabulary", staged / "vocabulary")
            for model in (base / "models").iterdir():
                shutil.copytree(model / "1", staged / "models" / model.name / str(version))
            items = world.sides["item"]
            rolled = np.roll(items.vectors, shift, axis=0)
            Embeddings(items.table, rolled).write(staged / "items.parquet")
            store.publish(staged, provenance_of(base))
        if activate:
            store.activate(version)
        return version

    return publish


def provenance_of(bundle: Path) -> Provenance:
    manifest = Bundle.read(bundle, verify=False).manifest
    names = [field.name for field in dataclasses.fields(Provenance)]
    return Provenance(**{name: getattr(manifest, name) for name in names})


@pytest.fixture
def best(world: World) -> Callable[..., list[str]]:
    """`best(row, shift=3, k=10)`: the ids of the items that a user's row ranks first in u2i."""

    def best(row: int, *, shift: int = 0, k: int = 10) -> list[str]:
        ids = world.sides["item"].ids.to_numpy().tolist()
        places = {item_id: place for place, item_id in enumerate(ids)}
        ranked, _ = world.rank("u2i", row)
        return [ids[(places[item_id] + shift) % len(ids)] for item_id in ranked[:k]]

    return best


@pytest.fixture
def damage() -> Callable[[Path, int], None]:
    """`damage(root, 2)`: make version 2 current with a file that is not as published."""

    def damage(root: Path, version: int) -> None:
        with (root / "versions" / str(version) / "users.parquet").open("ab") as file:
            file.write(b"x")
        Store(root).activate(version)

    return damage


@pytest.fixture
def outdate() -> Callable[[Path, int], None]:
    """`outdate(root, 2)`: make version 2 current, in a layout that this release cannot read."""

    def outdate(root: Path, version: int) -> None:
        manifest = root / "versions" / str(version) / MANIFEST
        values = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**values, "format": FORMAT + 1}))
        symlink_atomic(root / "current", Path("versions", str(version)))

    return outdate
