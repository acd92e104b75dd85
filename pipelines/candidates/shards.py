"""The folder that a candidates job writes: shards that are whole or not there, and its manifest.

    OUT/
      job.json                        what decides the rows; written first
      candidates/part-00000.parquet   the answers of the first `shard_size` rows of the input, ...
      audiences/part-00000.parquet    the same for items
      rejected/candidates-00000.parquet   the rows of that shard that have no answer, if any
      manifest.json                   the job, and each shard with its counts and checksum; last

A shard is written beside, or in a folder `.staging-*` if another process writes it, and renamed
into place, so one that is there is finished. Each says in its footer which job wrote it.
"""

from __future__ import annotations

import dataclasses
import hashlib
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
from serving.atomic import locked, move_file, remove_partial, replace_file, write_text_atomic
from serving.version.manifest import FileRecord
from towers.errors import ConfigError, DataError

JOB, MANIFEST, LOCK, REJECTED = "job.json", "manifest.json", ".lock", "rejected"
STAGING = ".staging-"
"""How the folders begin in which other processes write shards."""

FOOTER = b"fm-recall"
"""The key of what a shard says about itself."""

COMPRESSION: Mapping[str, Any] = {"compression": "zstd", "compression_level": 1}
REPEATING = ("user_id", "rank", "channel", "version")
"""The columns with few different values in a batch, which are encoded by a dictionary."""

Job = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Output:
    """A folder that is held for one job."""

    root: Path
    job: Job

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the job."""
        return hashlib.sha256(_to_json(self.job).encode()).hexdigest()

    def path(self, table: str, shard: int) -> Path:
        """Where a shard of a table is, once it is finished."""
        return self.root / table / f"part-{shard:05d}.parquet"

    def rejected_path(self, table: str, shard: int) -> Path:
        """Where the rows of a shard are that have no answer, if there are any."""
        return self.root / REJECTED / f"{table}-{shard:05d}.parquet"

    def read(self, table: str, shard: int) -> Record | None:
        """What a finished shard says, with its checksum; None where it is not there or not whole.

        Raises:
            DataError: another job wrote it.
        """
        path = self.path(table, shard)
        try:
            with pq.ParquetFile(path) as file:
                said: Record = json.loads((file.metadata.metadata or {})[FOOTER])
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return None
        if said.pop("job") != self.digest:
            raise DataError(
                f"{path}: expected a shard of this job, received another's; start over with "
                "--again, or write to another folder"
            )
        file_record = FileRecord.of(path)
        name = path.relative_to(self.root).as_posix()
        record = {"file": name, **said, **dataclasses.asdict(file_record)}
        return record if self._published.get(name, record) == record else None

    @contextmanager
    def writing(self, table: str, shard: int, *, schema: pa.Schema) -> Iterator[ShardWriter]:
        """Write a shard, which is there when the block ends, and not before."""
        path = self.path(table, shard)
        path.parent.mkdir(exist_ok=True)
        self._unpublish()
        with replace_file(path) as partial:
            columns = [name for name in REPEATING if name in schema.names]
            with pq.ParquetWriter(partial, schema, use_dictionary=columns, **COMPRESSION) as file:
                writer = ShardWriter(file)
                yield writer
                said = writer.record() | {"job": self.digest}
                file.add_key_value_metadata({FOOTER: json.dumps(said)})
            if writer.rejected:
                rejected = self.rejected_path(table, shard)
                rejected.parent.mkdir(exist_ok=True)
                with replace_file(rejected) as partial_rejected:
                    pq.write_table(pa.concat_tables(writer.rejected), partial_rejected)

    @contextmanager
    def staging(self) -> Iterator[Output]:
        """A folder within, for other processes to write shards to; gone when the block ends."""
        folder = self.root / f"{STAGING}{uuid4().hex}"
        folder.mkdir()
        try:
            yield Output(folder, self.job)
        finally:
            _remove_staging(self.root)

    def adopt(self, staged: Output, table: str, shard: int) -> bool:
        """Take over a shard from a staging folder, if it is finished; whether it was."""
        if not staged.path(table, shard).exists():
            return False
        self._unpublish()
        for source, target in (  # the shard last, since with it all is there
            (staged.rejected_path(table, shard), self.rejected_path(table, shard)),
            (staged.path(table, shard), self.path(table, shard)),
        ):
            if source.exists():
                target.parent.mkdir(exist_ok=True)
                move_file(source, target)
        return True

    def finish(self, shards: Mapping[str, list[Record]]) -> None:
        """Write the manifest, which says that all shards are there, unless it says so already."""
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
        write_text_atomic(self.root / MANIFEST, _to_json(body))

    @cached_property
    def _published(self) -> dict[str, Record]:
        """The shards that the manifest names, by their files; none where there is no manifest."""
        try:
            body = _read(self.root / MANIFEST)
            shards = [shard for table in body["tables"].values() for shard in table["shards"]]
            return {shard["file"]: shard for shard in shards}
        except (OSError, ValueError, KeyError):
            return {}

    def _unpublish(self) -> None:
        """Remove the manifest, before a shard changes."""
        (self.root / MANIFEST).unlink(missing_ok=True)
        self._published.clear()


class ShardWriter:
    """Takes the answers of the batches of one shard, in their order."""

    def __init__(self, file: pq.ParquetWriter) -> None:
        """Write to an open file."""
        self._file = file
        self._counts: Counter[str] = Counter()
        self._channels: Counter[str] = Counter()
        self.rejected: list[pa.Table] = []
        """The rows of the input without an answer; `row` counts from its start."""

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
        """How many rows of the input were answered and rejected, and how many rows that gave."""
        record: Record = {name: self._counts[name] for name in ("sources", "rejected", "rows")}
        return record | (
            {"channels": dict(sorted(self._channels.items()))} if self._channels else {}
        )


@contextmanager
def open_output(root: Path, job: Job, *, again: bool) -> Iterator[Output]:
    """Hold a folder for a job: a new one, one that the same job has begun, or `again` any job's.

    Raises:
        ConfigError: the folder holds something else or another job's rows, or another process
            writes to it.
    """
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root}: expected a folder, received a file; write to another path")
    job = json.loads(_to_json(job))
    root.mkdir(parents=True, exist_ok=True)
    _check_folder(root)
    with locked(root / LOCK, wait=False) as held:
        if not held:
            raise ConfigError(f"{root}: another process writes to it; wait for it to end")
        _remove_staging(root)
        remove_partial(root)
        if again or not _is_begun(root, job):
            _clear(root)
            write_text_atomic(root / JOB, _to_json(job))
        yield Output(root, job)


def totals(records: list[Record]) -> Record:
    """The sums over shards."""
    names = ("sources", "rejected", "rows", "bytes")
    total: Record = {name: sum(record[name] for record in records) for name in names}
    channels: Counter[str] = Counter()
    for record in records:
        channels.update(record.get("channels", {}))
    return total | ({"channels": dict(sorted(channels.items()))} if channels else {})


def _check_folder(root: Path) -> None:
    """Refuse a folder that holds anything else than a job."""
    ours = (LOCK, f".{JOB}.")
    others = sorted(path.name for path in root.iterdir() if not path.name.startswith(ours))
    if others and not (root / JOB).exists():
        raise ConfigError(
            f"{root}: expected an empty folder or one of this command's, received one with "
            f"{others[:3]}; write to another folder"
        )


def _is_begun(root: Path, job: Job) -> bool:
    """Whether a folder is this job's; refuse one that has another's rows."""
    try:
        begun = _read(root / JOB)
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise ConfigError(f"{root / JOB}: damaged: {error}; remove the folder") from None
    differences = _differences(begun, job)
    if differences and any(root.glob("*/part-*")):
        lines = "\n".join(f"  {line}" for line in differences[:5])
        raise ConfigError(
            f"{root}: holds the rows of another job\n{lines}\nStart over with --again, write to "
            "another folder, or repeat what was begun"
        )
    return not differences


def _differences(begun: Any, job: Any, name: str = "") -> list[str]:
    """Name the settings in which two jobs differ, with what was begun and what was received."""
    if isinstance(begun, dict) and isinstance(job, dict):
        return [
            line
            for key in dict.fromkeys([*begun, *job])
            for line in _differences(begun.get(key), job.get(key), f"{name}.{key}" if name else key)
        ]
    shown = (json.dumps(value, ensure_ascii=False)[:200] for value in (begun, job))
    return [] if begun == job else [f"{name}: begun with {next(shown)}, received {next(shown)}"]


def _remove_staging(root: Path) -> None:
    """Remove the staging folders; one to which a process that is late yet writes may stay."""
    for left in root.glob(f"{STAGING}*"):
        shutil.rmtree(left, ignore_errors=True)


def _clear(root: Path) -> None:
    """Remove what a job wrote, the manifest first and what says which job it was last."""
    (root / MANIFEST).unlink(missing_ok=True)
    for name in ("candidates", "audiences", REJECTED):
        if (root / name).is_dir():
            shutil.rmtree(root / name)
    (root / JOB).unlink(missing_ok=True)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _to_json(body: Any) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"
