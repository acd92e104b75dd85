"""How fast candidates are written for every user, against the bare search: from Parquet to Parquet.

Run: .venv/bin/python -m benchmarks.batch --users 100000

On a published version of a million items (made in build/serving/models if there is none), users
are answered as `fm-recall candidates` does, in a process of its own. Every second one is known to
the version; the others come with an age, a city and a history, which pass the tower. All have
twenty items that are left out. Before and after, ScaNN alone searches as many vectors with the
index's settings and the same k. Where other processes run, the ratio of processor times is the one
to believe. The recall of each channel is counted against an exact search.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.own_process import peak_gib
from pipelines.candidates.answer import CandidateTable
from pipelines.candidates.settings import CandidateSettings, Channel, load_settings, parse_channels
from pipelines.candidates.sources import SourceReader
from pipelines.candidates.write_candidates import CandidateJob, write_candidates
from pipelines.data.sources.parquet_files import SourceFiles
from pipelines.progress import Reporter
from serving.retrieval.parts import Parts
from serving.search.index import LARGEST_BATCH, Index
from serving.search.live_index import LiveExactIndex, LiveIndex
from serving.version.index_record import IndexRecord
from serving.version.manifest import MANIFEST
from serving.version.store import open_bundle
from towers.directions import DIRECTIONS

CHUNK = 100_000
"""Users that are made at a time."""

NEW = 10**9
"""Added to the numbers of users that the version does not know."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a clock, and of all processors together, which do not count who else runs."""

    wall: float
    cpu: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


@contextmanager
def measured(into: list[Cost]) -> Iterator[None]:
    """Add what the block costs to a list."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    into.append(Cost(time.perf_counter() - wall, time.process_time() - cpu))


class CostReporter(Reporter):
    """Remembers what each stage cost."""

    def __init__(self, console: Console) -> None:
        """Print to `console`."""
        super().__init__(console)
        self.costs: list[Cost] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Print and remember a stage; see `Reporter.stage`."""
        with super().stage(name), measured(self.costs):
            yield


class ExactParts(Parts):
    """A version whose directions are all searched exactly."""

    def _open_index(self, direction: str) -> LiveIndex:
        chosen = DIRECTIONS[direction]
        vectors = (self.users if chosen.target == "user" else self.items).vectors
        return LiveExactIndex(chosen.project(vectors))


def write_users(path: Path, parts: Parts, *, n: int) -> None:
    """Write n users in Parquet; each has the history of one that the version knows."""
    matrix = parts.seen.matrix
    n_known, rng = matrix.shape[0], np.random.default_rng(1)
    item_ids = parts.items.ids
    kinds = [("user_id", pa.int64()), ("age", pa.int64()), ("city", pa.int64())]
    schema = pa.schema([*kinds, ("history", pa.list_(pa.int64()))])
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, n, CHUNK):
            numbers = np.arange(start, min(start + CHUNK, n))
            is_known = (numbers % 2 == 0) & (numbers < n_known)
            like = matrix[numbers % n_known]
            history = pa.ListArray.from_arrays(
                pa.array(like.indptr, pa.int32()), pa.array(item_ids.take(like.indices))
            )
            columns = [
                pa.array(np.where(is_known, numbers, numbers + NEW)),
                pa.array(rng.integers(7, size=len(numbers))),
                pa.array(rng.integers(500, size=len(numbers))),
                history,
            ]
            file.write_table(pa.Table.from_arrays(columns, schema=schema))


def query_vectors(parts: Parts, files: SourceFiles) -> NDArray[np.float32]:
    """The vectors of all users."""
    reader = SourceReader(parts, "user", schema=files.schema, prefer_features=False)
    full, rest = divmod(files.n_rows, CHUNK)
    sizes = [CHUNK] * full + [rest] * (rest > 0)
    batches = files.batches(0, columns=reader.columns, sizes=sizes)
    return np.concatenate([reader(batch).vectors for batch in batches])


def search_bare(index: Index, queries: NDArray[np.float32], *, k: int) -> Cost:
    """What the index alone takes, with its settings."""
    costs: list[Cost] = []
    with measured(costs):
        for start in range(0, len(queries), LARGEST_BATCH):
            index.search(queries[start : start + LARGEST_BATCH], k)
    return costs[0]


def recall_by_channel(
    bundle: Any, files: SourceFiles, settings: CandidateSettings, *, sample: int
) -> dict[str, float]:
    """The share of each channel's exact candidates that it lists, for the first users."""
    tables = [Parts(bundle), ExactParts(bundle)]
    found: dict[str, float] = {}
    for channel in settings.plan:
        only = dataclasses.replace(
            settings, k=channel.quota, channels=(Channel(name=channel.name, quota=channel.quota),)
        )
        pairs = []
        for parts in tables:
            answer = CandidateTable(parts, only, schema=files.schema)
            batch = next(files.batches(0, columns=answer.columns, sizes=[sample]))
            table = answer(batch).table
            columns = (table[name].to_pylist() for name in ("user_id", "item_id"))
            pairs.append(set(zip(*columns, strict=True)))
        found[channel.name] = len(pairs[0] & pairs[1]) / len(pairs[1])
    return found


def run_job(given: argparse.Namespace) -> None:
    """Write the candidates, and print what that cost and the peak memory as JSON."""
    reporter = CostReporter(Console(stderr=True))
    job = CandidateJob(
        models=given.models,
        users=given.out / "users.parquet",
        out=given.out / "candidates",
        settings=_settings(given),
    )
    start = time.perf_counter()
    totals = write_candidates(job, again=True, reporter=reporter)
    report = {
        "all": time.perf_counter() - start,
        "stream": dataclasses.asdict(reporter.costs[-1]),
        "peak_mib": 1024 * peak_gib(),  # not of rusage, which counts the process that started this
        "totals": totals["candidates"],
    }
    sys.stdout.write(json.dumps(report) + "\n")


def _settings(given: argparse.Namespace) -> CandidateSettings:
    channels = parse_channels(given.channels or f"u2i={given.k}")
    return load_settings(None, changes={"k": given.k, "channels": channels})


def _shown(cost: Cost, n: int) -> str:
    """Write a cost as a rate, and as processor time for each."""
    return f"{n / cost.wall:,.0f}/s, {1e6 * cost.cpu / n:,.0f} microseconds of processor time each"


def _measure(given: argparse.Namespace, console: Console) -> None:
    """Run the job between two halves of the bare search, and print what they took."""
    bundle = open_bundle(given.models, verify=False)
    parts = Parts(bundle)
    given.out.mkdir(parents=True, exist_ok=True)
    users = given.out / "users.parquet"
    write_users(users, parts, n=given.users)
    files = SourceFiles.open(users, name="users")
    queries = query_vectors(parts, files)
    record = IndexRecord.from_dict(bundle.manifest.index, where=MANIFEST)
    settings = record.directions["u2i"].trees
    if not settings:
        raise SystemExit("the version has an exact index; this compares with ScaNN")
    index = parts.index("u2i")
    del parts
    half = len(queries) // 2
    search_bare(index, queries[:1000], k=given.k)
    bare = search_bare(index, queries[:half], k=given.k)
    child = [sys.executable, "-m", "benchmarks.batch", "--job", *sys.argv[1:]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [".", *sys.path]))}
    done = subprocess.run(child, check=True, stdout=subprocess.PIPE, env=environment)
    job = json.loads(done.stdout)
    bare += search_bare(index, queries[half:], k=given.k)
    console.print(f"version: {index.size:,} items, {queries.shape[1]} dimensions; {settings}")
    console.print(f"bare search, top {given.k}: {_shown(bare, given.users)}")
    stream = Cost(**job["stream"])
    console.print(f"candidates, from Parquet to Parquet: {_shown(stream, given.users)}")
    console.print(f"with loading and checking the version: {job['all']:.0f} s")
    by_clock, by_cpu = bare.wall / stream.wall, bare.cpu / stream.cpu
    console.print(
        f"of the bare search: {by_clock:.0%} by the clock, {by_cpu:.0%} by processor time"
    )
    console.print(f"rows: {job['totals']}")
    console.print(f"peak memory of the job: {job['peak_mib']:,.0f} MiB")
    found = recall_by_channel(bundle, files, _settings(given), sample=given.sample)
    for name, share in found.items():
        console.print(f"recall of {name}, of the first {given.sample} users: {share:.4f}")


def main() -> None:
    """Make what is missing, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("build/serving/models"))
    parser.add_argument("--out", type=Path, default=Path("build/batch"))
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--channels", default="", help="as fm-recall candidates; default: u2i")
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        run_job(given)
        return
    console = Console(highlight=False, soft_wrap=True)
    if not (given.models / "current").exists():
        from benchmarks.serving.corpus import Size, publish_corpus  # noqa: PLC0415

        publish_corpus(given.models, Size(), Reporter(console))
    _measure(given, console)
    shutil.rmtree(given.out / "candidates")


if __name__ == "__main__":
    main()
