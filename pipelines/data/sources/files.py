"""The files of a table: one file, or every file of a folder, however deep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal
from urllib.parse import unquote

from towers.errors import ConfigError, DataError

PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv", ".txt", ".dat")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".lz4")
"""Suffixes of compressed CSV and JSON files that are read as they are."""
COMPRESSED = 4
"""How many times larger than its file a compressed text is taken to be."""
LARGE_BYTES = 1 << 28
"""CSV and JSON lines of more bytes than this are large: they stay on disk."""
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark call the folder of rows without a value."""
SHOWN_FILES = 3

FileKind = Literal["parquet", "csv", "json"]


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """One file of a table."""

    path: Path
    keys: tuple[tuple[str, str | None], ...] = ()
    """Columns of its rows that are named by the folders it lies in, such as `day=2`."""

    @property
    def n_bytes(self) -> int:
        """About how much text it holds, if it is no Parquet."""
        is_compressed = self.path.suffix.lower() in COMPRESSIONS
        return self.path.stat().st_size * (COMPRESSED if is_compressed else 1)


@dataclass(frozen=True, kw_only=True)
class TableFiles:
    """All files of a table, of one kind, in order of their names."""

    files: tuple[TableFile, ...]
    kind: FileKind

    @property
    def is_parquet(self) -> bool:
        """Whether its columns have types, and its rows can be read where they lie."""
        return self.kind == "parquet"

    @property
    def is_large_text(self) -> bool:
        """Whether it is CSV or JSON lines that are too large to be held in memory unasked."""
        return not self.is_parquet and sum(file.n_bytes for file in self.files) > LARGE_BYTES

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that folders name, the same for every file."""
        return tuple(name for name, _ in self.files[0].keys)


def table_files(path: str | Path, *, name: str) -> TableFiles:
    """List the files of the table at `path`.

    A file is Parquet or JSON lines by its suffix, and CSV otherwise. A folder is read whole: all
    its files, and those of the folders within, except for names that begin with `.` or `_`.

    Raises:
        ConfigError: no path is given.
        DataError: there is no such file, or the folder holds a file that would not be read.
    """
    if not str(path):
        raise ConfigError(f"{name}: expected the path of a table, received none; give its path")
    path = Path(path)
    if path.is_file():
        return _one_file(path, name=name)
    if not path.is_dir():
        raise DataError(f"{name}: no such file or folder: {path}; check the path")
    found = _list(path, name=name)
    kinds: dict[FileKind, list[Path]] = {"parquet": [], "csv": [], "json": []}
    for file in found:
        kind = _kind(file)
        if kind is not None:
            kinds[kind].append(file)
    chosen = next((kind for kind, files in kinds.items() if files), None)
    if chosen is None:
        raise DataError(
            f"{name}: expected *.parquet, *.csv or *.jsonl files in the folder {path}, received "
            "none; name a file, or a folder with files of one of these kinds"
        )
    kept = kinds[chosen]
    _refuse_others(path, found=found, kept=kept, name=name)
    files = tuple(TableFile(path=file, keys=_keys(file.relative_to(path))) for file in kept)
    _check_keys(files, name=name)
    return TableFiles(files=files, kind=chosen)


def _one_file(path: Path, *, name: str) -> TableFiles:
    """Take a single file, unless its suffix says that it is of another kind."""
    suffix = path.suffix.lower()
    if suffix in {".zip", ".7z", ".rar", ".xlsx", ".xls", ".orc", ".avro"}:
        raise DataError(
            f"{name}: expected CSV or JSON lines (plain, or compressed as "
            f"{', '.join(COMPRESSIONS)}) or Parquet, received {path}; convert the file"
        )
    return TableFiles(files=(TableFile(path=path),), kind=_kind(path) or "csv")


def _list(folder: Path, *, name: str) -> list[Path]:
    """List the visible files within a folder, in order of their paths."""
    if (folder / "_delta_log").exists():
        raise DataError(
            f"{name}: {folder} is a Delta table, whose files may hold rows that were deleted; "
            "export it as plain Parquet, and name that folder"
        )
    found = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    visible = [file for file in found if not any(part[0] in "._" for part in file.parts)]
    return [folder / file for file in sorted(visible)]


def _kind(path: PurePath) -> FileKind | None:
    """What a file is by its name, plain or compressed; None if that does not say."""
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return "parquet"
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    suffix = path.suffix.lower()
    if suffix in JSON_SUFFIXES:
        return "json"
    return "csv" if suffix in CSV_SUFFIXES else None


def _refuse_others(folder: Path, *, found: list[Path], kept: list[Path], name: str) -> None:
    """Refuse a folder of which only some files would be read."""
    others = [str(file.relative_to(folder)) for file in found if file not in set(kept)]
    if others:
        more = f" and {len(others) - SHOWN_FILES} more" if len(others) > SHOWN_FILES else ""
        raise DataError(
            f"{name}: expected files of one kind in the folder {folder}, but beside "
            f"{kept[0].relative_to(folder)} there is also {', '.join(others[:SHOWN_FILES])}{more}, "
            "which would not be read; move what is no part of the table out of the folder, or "
            "begin its name with _"
        )


def _keys(path: PurePath) -> tuple[tuple[str, str | None], ...]:
    """Read the columns that folders name, as Hive and Spark write them."""
    pairs = [part.split("=", 1) for part in path.parts[:-1] if "=" in part]
    return tuple(
        (unquote(key), None if value == NO_PARTITION else unquote(value)) for key, value in pairs
    )


def _check_keys(files: tuple[TableFile, ...], *, name: str) -> None:
    """Refuse files whose folders name different columns."""
    first = files[0]
    for file in files:
        if [key for key, _ in file.keys] != [key for key, _ in first.keys]:
            raise DataError(
                f"{name}: expected the same key=value folders around every file, received "
                f"{first.path} and {file.path}; move the file, or name one folder of them"
            )
