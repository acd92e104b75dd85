"""The files of a table: one file, or every file of a folder, however deep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote

from towers.errors import ConfigError, DataError

PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv", ".txt", ".dat")
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")
"""Suffixes of compressed CSV files that are read as they are."""
COMPRESSED = 4
"""How many times larger than its file a compressed text is taken to be."""
LARGE_BYTES = 1 << 28
"""CSV of more bytes than this is large: it stays on disk."""
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark call the folder of rows without a value."""
SHOWN_FILES = 3


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """One file of a table."""

    path: Path
    keys: tuple[tuple[str, str | None], ...] = ()
    """Columns of its rows that are named by the folders it lies in, such as `day=2`."""

    @property
    def n_bytes(self) -> int:
        """About how much it holds, if it is CSV."""
        is_compressed = self.path.suffix.lower() in COMPRESSIONS
        return self.path.stat().st_size * (COMPRESSED if is_compressed else 1)


@dataclass(frozen=True, kw_only=True)
class TableFiles:
    """All files of a table, of one kind, in order of their names."""

    files: tuple[TableFile, ...]
    is_parquet: bool

    @property
    def is_large_csv(self) -> bool:
        """Whether it is CSV that is too large to be held in memory unasked."""
        return not self.is_parquet and sum(file.n_bytes for file in self.files) > LARGE_BYTES

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that folders name, the same for every file."""
        return tuple(name for name, _ in self.files[0].keys)


def table_files(path: str | Path, *, name: str) -> TableFiles:
    """List the files of the table at `path`.

    A file is Parquet by its suffix, and CSV otherwise. A folder is read whole: all its files, and
    those of the folders within, except for names that begin with `.` or `_`.

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
    parquet = [file for file in found if file.suffix.lower() in PARQUET_SUFFIXES]
    csv = [file for file in found if _is_csv(file)]
    kept = parquet or csv
    if not kept:
        raise DataError(
            f"{name}: expected *.parquet or *.csv files in the folder {path}, received neither; "
            "name a file, or a folder with files of one of the two kinds"
        )
    _refuse_others(path, found=found, kept=kept, name=name)
    files = tuple(TableFile(path=file, keys=_keys(file.relative_to(path))) for file in kept)
    _check_keys(files, name=name)
    return TableFiles(files=files, is_parquet=bool(parquet))


def _one_file(path: Path, *, name: str) -> TableFiles:
    """Take a single file, unless its suffix says that it is neither CSV nor Parquet."""
    suffix = path.suffix.lower()
    if suffix in {
        ".xz",
        ".zip",
        ".7z",
        ".rar",
        ".xlsx",
        ".xls",
        ".json",
        ".jsonl",
        ".orc",
        ".avro",
    }:
        raise DataError(
            f"{name}: expected CSV (plain, or compressed as {', '.join(COMPRESSIONS)}) or Parquet, "
            f"received {path}; convert the file"
        )
    return TableFiles(files=(TableFile(path=path),), is_parquet=suffix in PARQUET_SUFFIXES)


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


def _is_csv(path: PurePath) -> bool:
    """Whether the name is that of a CSV file, plain or compressed."""
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    return path.suffix.lower() in CSV_SUFFIXES


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
