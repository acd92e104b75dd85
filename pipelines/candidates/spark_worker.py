"""What a Spark worker does with shards of a candidates job; it needs Python only, no PySpark.

A worker is a Python process that Spark keeps for many tasks. It opens the version once.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.candidates.blocked import read_block, remove_blocked
from pipelines.candidates.job import Task, make_task, write_stretch
from pipelines.candidates.settings import CandidateSettings, load_settings
from pipelines.candidates.shards import Output
from pipelines.data.parquet_files import SourceFiles
from serving.retrieval.parts import Parts
from serving.version.manifest import MANIFEST, FileRecord
from serving.version.store import open_bundle
from towers.errors import ConfigError, DataError, RecallError

OUTCOME = pa.schema({"number": pa.int64(), "kind": pa.string(), "message": pa.string()})
"""What became of the shard of this number; `kind`, the class of the error, and `message` are null
where it is written."""


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """What shards of a table are made from; paths are absolute, and the same on every machine."""

    bundle: Path
    table: str
    source: Path
    """The table of users or items."""
    block: Path | None
    job: str
    """The job as JSON; see `Output.job`."""

    @property
    def described(self) -> dict[str, Any]:
        """The job."""
        return json.loads(self.job)  # type: ignore[no-any-return]

    @property
    def settings(self) -> CandidateSettings:
        """The settings of the job."""
        return load_settings(None, changes=self.described["settings"])


def write_shards(work: ShardWork, staging: Path, shards: list[int]) -> Iterator[pa.RecordBatch]:
    """Write shards to a staging folder one by one; for each, say what became of it (`OUTCOME`).

    Errors that would come again are said. Others, such as a full disk, are raised, so that Spark
    tries again.
    """
    for shard in shards:
        outcome: dict[str, Any] = {"number": shard}
        try:
            _write(work, staging, shard)
        except RecallError as error:
            message = f"on {socket.gethostname()}: {error}"
            outcome |= {"kind": type(error).__name__, "message": message}
        yield pa.RecordBatch.from_pylist([outcome], schema=OUTCOME)


def _write(work: ShardWork, staging: Path, shard: int) -> None:
    """Write one shard.

    Raises:
        RecallError: what is read here is not what the job was started with.
    """
    if not staging.is_dir():
        raise ConfigError(
            f"{staging}: expected the folder to write to, received none; the paths of the models, "
            "the input and --out must lead every machine to the same shared storage"
        )
    output = Output(staging, work.described)
    write_stretch(open_task(work), output, shards=[shard], advance=lambda _: None)


@lru_cache(maxsize=1)
def open_task(work: ShardWork) -> Task:
    """Open the table to write; the one that was asked for last stays open.

    Raises:
        RecallError: what is read here is not what the job was started with.
    """
    files = SourceFiles.open(work.source, name="users" if work.table == "candidates" else "items")
    _check_input(work, files)
    parts = _open_parts(work.bundle, work.block, work.job)
    task = make_task(work.table, files, parts=parts, settings=work.settings)
    task.load()
    return task


@lru_cache(maxsize=1)
def _open_parts(bundle: Path, block: Path | None, job: str) -> Parts:
    """Read the version, without the items of the block list; both tables of a job share it."""
    work = ShardWork(bundle=bundle, table="", source=Path(), block=block, job=job)
    opened = open_bundle(bundle)
    _check_same(bundle / MANIFEST, work.described["bundle"])
    parts = Parts(opened)
    if block is not None:
        blocked = read_block(block)
        for shard, digest in zip(blocked.shards, work.described["block"], strict=True):
            _check_same(Path(shard.file), digest)
        remove_blocked(parts, blocked, work.settings.plan)
    return parts


def _check_same(path: Path, sha256: str) -> None:
    """Refuse a file that differs from what the job was started with."""
    received = FileRecord.of(path).sha256
    if received != sha256:
        raise DataError(
            f"{path}: expected sha256 {sha256}, as where the job was started, received {received}; "
            "give every machine the same files"
        )


def _check_input(work: ShardWork, files: SourceFiles) -> None:
    """Refuse an input whose files differ in name or size; their checksums would take long."""
    wanted = [(file["name"], file["bytes"]) for file in work.described["inputs"][work.table]]
    received = [(path.name, path.stat().st_size) for path in files.paths]
    if received != wanted:
        raise DataError(
            f"{work.source}: expected files of these names and bytes, as where the job was "
            f"started: {wanted}; received {received}; give every machine the same files"
        )
