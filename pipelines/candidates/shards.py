"""The folder that a candidates job writes: shards that are whole or not there, and its manifest.

    OUT/
      job.json                        what decides the rows; written first
      candidates/part-00000.parquet   the answers of the first `shard_size` rows of the input, ...
      audiences/part-00000.parquet    the same for items
      rejected/candidates-00000.parquet   the rows of that shard that have no answer, if any
      .records/candidates-00000.json  that shard's counts and checksums
      manifest.json                   the job, and each shard with its counts and checksum; last

A shard is written under another name, or in a staging folder if another process writes it, and
renamed when it is finished; its record is written last. A shard that has no record, or is not what
its record says, is written again. See `pipelines.job_folder` for who may write here.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.candidates.answer import Answered
from pipelines.job_folder import Job, JobFolder, to_text
from serving.atomic import PARTIAL, move_file, replace_file, write_text_atomic
from serving.version.manifest import FileRecord

MANIFEST, REJECTED, RECORDS = "manifest.json", "rejected", ".records"
REJECTED_FILES = "rejected_files"
"""The key, in the record of a shard, of the file of its rejected rows."""

COMPRESSION: Mapping[str, Any] = {"compression": "zstd", "compression_level": 1}
REPEATING = ("user_id", "rank", "channel", "version")
"""The columns with few distinct values in a batch, which are dictionary-encoded."""

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Output:
    """A folder that shards of one job are written to."""

    root: Path
    job: Job

    def path(self, table: str, shard: int) -> Path:
        """The path of a finished shard of a table."""
        return self.root / table / f"part-{shard:05d}.parquet"

    def rejected_path(self, table: str, shard: int) -> Path:
        """The path of the rows of a shard that have no answer, if there are any."""
        return self.root / REJECTED / f"{table}-{shard:05d}.parquet"

    def record_path(self, table: str, shard: int) -> Path:
        """The path of the record of a shard: its counts, and the checksums of its files."""
        return self.root / RECORDS / f"{table}-{shard:05d}.json"

    def read(self, table: str, shard: int) -> Record | None:
        """The record of a finished shard; None if it is missing, or its files are damaged.

        The files are held against the checksums that were taken when they were written.
        """
        record = self._published.get(self._name(self.path(table, shard)))
        try:
            if record is None:
                record = json.loads(self.record_path(table, shard).read_text(encoding="utf-8"))
            files = [record, *record.get(REJECTED_FILES, [])]
            is_whole = all(
                file == file | self._describe(self.root / file["file"]) for file in files
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if is_whole else None

    @contextmanager
    def writing(self, table: str, shard: int, *, schema: pa.Schema) -> Iterator[ShardWriter]:
        """Write a shard; it counts when the block ends without error."""
        path, rejected = self.path(table, shard), self.rejected_path(table, shard)
        path.parent.mkdir(exist_ok=True)
        self._unpublish()
        self.record_path(table, shard).unlink(missing_ok=True)
        rejected.unlink(missing_ok=True)
        with replace_file(path) as partial:
            columns = [name for name in REPEATING if name in schema.names]
            with pq.ParquetWriter(partial, schema, use_dictionary=columns, **COMPRESSION) as file:
                writer = ShardWriter(file)
                yield writer
        record = self._describe(path) | writer.record()
        if writer.rejected:
            rejected.parent.mkdir(exist_ok=True)
            with replace_file(rejected) as partial_rejected:
                pq.write_table(pa.concat_tables(writer.rejected), partial_rejected)
            record[REJECTED_FILES] = [self._describe(rejected)]
        recorded = self.record_path(table, shard)
        recorded.parent.mkdir(exist_ok=True)
        write_text_atomic(recorded, to_text(record))

    @contextmanager
    def staging(self) -> Iterator[Output]:
        """A folder within, for other processes to write shards to; gone when the block ends.

        Where one of them is late and still writes, the next claim of the folder removes the rest.
        """
        folder = self.root / f".staging.{uuid4().hex}{PARTIAL}"
        folder.mkdir()
        try:
            yield Output(folder, self.job)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def adopt(self, staged: Output, table: str, shard: int) -> None:
        """Take over a finished shard from a staging folder, with its rejected rows."""
        self._unpublish()
        rejected = staged.rejected_path(table, shard)
        if rejected.exists():
            _move(rejected, self.rejected_path(table, shard))
        _move(staged.path(table, shard), self.path(table, shard))
        # last: with it, all is there
        _move(staged.record_path(table, shard), self.record_path(table, shard))

    def finish(self, shards: Mapping[str, list[Record]]) -> None:
        """Write the manifest, which names all shards, unless it is there already."""
        if (self.root / MANIFEST).exists() and len(self._published) == sum(
            map(len, shards.values())
        ):
            return
        body = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.job,
            "tables": {
                name: {**totals(records), "shards": records} for name, records in shards.items()
            },
        }
        write_text_atomic(self.root / MANIFEST, to_text(body))

    def _describe(self, path: Path) -> Record:
        """The name, the checksum and the size of a file."""
        return {"file": self._name(path), **dataclasses.asdict(FileRecord.of(path))}

    def _name(self, path: Path) -> str:
        """The name of a file, relative to the folder."""
        return path.relative_to(self.root).as_posix()

    @cached_property
    def _published(self) -> dict[str, Record]:
        """The records in the manifest by file name; empty where there is no manifest."""
        try:
            body = json.loads((self.root / MANIFEST).read_text(encoding="utf-8"))
            shards = [shard for table in body["tables"].values() for shard in table["shards"]]
            return {shard["file"]: shard for shard in shards}
        except (OSError, ValueError, KeyError):
            return {}

    def _unpublish(self) -> None:
        """Remove the manifest, before a shard changes."""
        (self.root / MANIFEST).unlink(missing_ok=True)
        self._published.clear()


class ShardWriter:
    """Writes the answers of the batches of one shard, in order, and counts them."""

    def __init__(self, file: pq.ParquetWriter) -> None:
        """Write to an open file."""
        self._file = file
        self._counts: Counter[str] = Counter()
        self._channels: Counter[str] = Counter()
        self.rejected: list[pa.Table] = []
        """The rows without an answer; `row` is the row number in the whole input."""

    def write(self, answered: Answered, *, first_row: int, size: int) -> None:
        """Write the answer of `size` rows of the input, from `first_row` on."""
        table, rejected = answered.table, answered.rejected
        if table.num_rows:
            self._file.write_table(table)
        if rejected.num_rows:
            rows = pc.add(rejected["row"], first_row)
            self.rejected.append(rejected.set_column(0, "row", rows))
        self._counts.update(sources=size, rejected=rejected.num_rows, rows=table.num_rows)
        if "channel" in table.column_names:
            for part in table["channel"].chunks:
                counts = pc.value_counts(part.indices).to_pylist()
                names = part.dictionary.to_pylist()
                self._channels.update({names[c["values"]]: c["counts"] for c in counts})

    def record(self) -> Record:
        """The counts: rows of the input, of those rejected, and rows written, by channel too."""
        record: Record = {name: self._counts[name] for name in ("sources", "rejected", "rows")}
        return record | (
            {"channels": dict(sorted(self._channels.items()))} if self._channels else {}
        )


@contextmanager
def open_output(root: Path, job: Job, *, again: bool) -> Iterator[Output]:
    """Hold a folder for a job: a new one, one that the same job has begun, or `again` any job's.

    Another job may also have it while no shard is finished.

    Raises:
        ConfigError: the folder holds something else or another job's rows, or another process
            writes to it.
    """
    names = (MANIFEST, RECORDS, "candidates", "audiences", REJECTED)
    folder = JobFolder(path=root, job=job, results="*/part-*", names=names)
    with folder.claim(again=again):
        yield Output(root, folder.job)


def totals(records: list[Record]) -> Record:
    """The sums of the counts over shards."""
    names = ("sources", "rejected", "rows", "bytes")
    total: Record = {name: sum(record[name] for record in records) for name in names}
    channels: Counter[str] = Counter()
    for record in records:
        channels.update(record.get("channels", {}))
    return total | ({"channels": dict(sorted(channels.items()))} if channels else {})


def _move(source: Path, target: Path) -> None:
    """Rename a finished file into a folder, made if need be."""
    target.parent.mkdir(exist_ok=True)
    move_file(source, target)
