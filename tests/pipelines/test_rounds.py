from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipelines import run as run_module
from pipelines.fit import FitState
from pipelines.progress import Advance, Reporter
from pipelines.results import Results
from pipelines.run import run
from serving.embeddings import Embeddings
from serving.store import Store

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

Published = tuple[Path, Results]


class Interrupting(Reporter):
    """Stops the run as Ctrl-C does where it reports `at`; remembers what it was told."""

    def __init__(self, at: str | None = None) -> None:
        super().__init__()
        self.at, self.lines = at, list[str]()

    def reach(self, point: str) -> None:
        if point == self.at:
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.reach(text.strip())
        self.lines.append(text.strip())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.reach(name)
        with super().stage(name):
            yield

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += 1
            self.reach(f"{name}: {done}")

        yield advance


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def remove_some(folder: Path) -> None:
    """Remove some of a folder, as `shutil.rmtree` does when it is killed."""
    for path in sorted(folder.rglob("*"))[::2]:
        if path.is_file():
            path.unlink()
    raise KeyboardInterrupt


POINTS: list[str | tuple[object, str, Callable[..., None]]] = [
    "split",
    "epoch 1: 2",
    "epoch 2: 3",
    (FitState, "save", interrupt),  # the third epoch has a checkpoint, but is not finished
    "round 0: evaluate",
    "export: 3",
    (Store, "activate", interrupt),  # version 1 is published, but not current
    "mine: 1",
    "round 1: export, check against exact, publish",
    "version 2 is published and current",
    (shutil, "rmtree", remove_some),
]
"""Where the run is interrupted, in order."""


@pytest.mark.slow
def test_a_run_interrupted_anywhere_ends_as_if_it_had_not_been(
    tiny: Tiny, published: Published, tmp_path: Path
) -> None:
    out, lines, seen = tmp_path / "models", list[str](), dict[int, dict[str, str]]()
    for point in POINTS:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            reporter = Interrupting(point if isinstance(point, str) else None)
            if not isinstance(point, str):
                patch.setattr(*point)
            run(tiny.config(), out, frames=tiny.tables, reporter=reporter)
        lines += reporter.lines
        for version in Store(out).versions():
            found = tiny.digest(out / "versions" / str(version))
            assert seen.setdefault(version, found) == found
    reporter = Interrupting()
    results = run(tiny.config(), out, frames=tiny.tables, reporter=reporter)
    lines += reporter.lines

    expected_at, expected = published
    assert seen == {v: tiny.digest(out / "versions" / str(v)) for v in Store(out).versions()}
    assert figures(results) == figures(expected)
    assert tiny.left_over(out) == []
    for version in (1, 2):
        for name in ("users", "items"):
            got, wanted = (
                Embeddings.read(root / "versions" / str(version) / f"{name}.parquet").vectors
                for root in (out, expected_at)
            )
            np.testing.assert_array_equal(got, wanted)
    n_epochs = sum(len(found["epochs"]) + best_epoch(found) for found in expected["rounds"])
    assert sum(line.startswith("epoch") for line in lines) == n_epochs  # none was run again


def figures(results: Results) -> dict[str, Any]:
    """Everything that does not depend on the time."""
    plain = json.loads(json.dumps(results))
    del plain["created"], plain["timings"]
    for found in plain["rounds"]:
        for epoch in found["epochs"]:
            del epoch["seconds"]
    return plain  # type: ignore[no-any-return]


def best_epoch(found: Any) -> int:
    return 1 + int(np.argmax([epoch["recall@5"] for epoch in found["epochs"]]))
