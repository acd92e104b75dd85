"""Bring Gowalla into tables: the check-ins of LightGCN's official split.

Run: .venv/bin/python -m benchmarks.data

The two files hold a user and its items a line. They are taken from data/gowalla, or else from
LightGCN's repository, checked against their digests, and written as Parquet to build/data/gowalla,
where benchmarks/gowalla.toml reads them. MovieLens 1M needs nothing: GroupLens' ml-1m.zip, unzipped
into data/, is read as it is.

Source: X. He et al., LightGCN, SIGIR 2020.
"""

from __future__ import annotations

import argparse
import hashlib
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd

from serving.atomic import make_folder
from towers.errors import DataError

URL = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/master/data/gowalla"
TIMEOUT_S = 120
SHA256 = {
    "train.txt": "0f086326b28a56c2e6dcb81d86ee72d4ccb7eed3a8d26788392356d8f51111cc",
    "test.txt": "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
}
"""The two files and their digests."""
TABLES = {"train.txt": "interactions.parquet", "test.txt": "test.parquet"}


def read_pairs(text: str) -> pd.DataFrame:
    """Read lines of a user and its items into pairs: user_id and item_id, int64."""
    lines = [np.array(line.split(), dtype=np.int64) for line in text.splitlines() if line.strip()]
    users = np.repeat([line[0] for line in lines], [len(line) - 1 for line in lines])
    return pd.DataFrame({"user_id": users, "item_id": np.concatenate([line[1:] for line in lines])})


def prepare_gowalla(source: Path, out: Path) -> Path:
    """Write Gowalla's tables into the folder `out` unless they are there; all or nothing.

    Raises:
        DataError: a file can neither be found nor fetched, or is not the one that is expected.
    """
    if out.is_dir():
        return out
    with make_folder(out) as folder:
        for name, table in TABLES.items():
            read_pairs(_text(source / name)).to_parquet(folder / table)
    return out


def _text(path: Path) -> str:
    """Read a file of the split, or fetch it where it is not there."""
    content = path.read_bytes() if path.exists() else _fetch(f"{URL}/{path.name}", path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[path.name]:
        raise DataError(
            f"{path}: expected the file with SHA-256 {SHA256[path.name]}, received {digest}; take "
            f"it from {URL}/{path.name}"
        )
    return content.decode("ascii")


def _fetch(url: str, path: Path) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            content: bytes = response.read()
    except OSError as error:
        raise DataError(
            f"{path}: no such file, and {url} cannot be reached: {error}; put it there by hand"
        ) from None
    return content


def main() -> None:
    """Prepare the tables and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=Path("data/gowalla"))
    parser.add_argument("--out", type=Path, default=Path("build/data/gowalla"))
    given = parser.parse_args()
    print(prepare_gowalla(given.source, given.out))


if __name__ == "__main__":
    main()
