"""The vocabulary on disk: one Parquet file a token space, and one JSON file for the rest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from towers.errors import BundleError
from towers.features.vocabulary import (
    Buckets,
    Coordinates,
    Hashed,
    Scalar,
    Space,
    Tokens,
    Vocabulary,
)

KINDS: dict[str, Callable[..., Space]] = {
    kind.__name__.lower(): kind for kind in (Hashed, Scalar, Buckets, Coordinates)
}
"""Spaces that are a few numbers, by the name that the JSON file gives them."""


def write_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Write the vocabulary into the new folder `folder`."""
    folder.mkdir(parents=True)
    spaces: dict[str, dict[str, Any]] = {}
    for number, (name, space) in enumerate(vocabulary.spaces.items()):
        if not isinstance(space, Tokens):
            spaces[name] = {"kind": type(space).__name__.lower()} | dataclasses.asdict(space)
            continue
        file = f"tokens-{number}.parquet"
        spaces[name] = {"kind": "tokens", "file": file, "oov_row": space.oov_row}
        kind = pa.int64() if space.is_integer else pa.string()
        tokens = pa.array(space.tokens, kind)
        pq.write_table(
            pa.table({"token": tokens, "row": space.rows, "count": space.counts}), folder / file
        )
    body = {
        "n_rows": vocabulary.n_rows,
        "spaces": spaces,
    }
    (folder / "vocabulary.json").write_text(json.dumps(body, indent=2), encoding="utf-8")


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read what `write_vocabulary` wrote.

    Raises:
        BundleError: a file is missing or not what it should be.
    """
    path = folder / "vocabulary.json"
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        spaces = {name: _read_space(raw, folder) for name, raw in body["spaces"].items()}
        vocabulary = Vocabulary(spaces=spaces, n_rows=body["n_rows"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        raise BundleError(
            f"{path}: expected a vocabulary, received something else: {error}; publish again"
        ) from None
    if (factor := body.get("unknown_item_scale", 1.0)) != 1.0:
        raise BundleError(
            f"{path}: expected features that count as they are, received a factor of {factor:g} "
            "for those of items with unknown ids, which is no longer read; publish again"
        )
    return vocabulary


def _read_space(raw: dict[str, Any], folder: Path) -> Space:
    """Build one space from its entry."""
    kind = raw.pop("kind")
    if kind != "tokens":
        return KINDS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})
    table = pq.read_table(folder / raw["file"])
    tokens = table["token"]
    integer = pa.types.is_integer(tokens.type)
    return Tokens(
        tokens=tokens.to_numpy().astype(np.int64 if integer else object),
        rows=table["row"].to_numpy().astype(np.int64),
        counts=table["count"].to_numpy().astype(np.int64),
        oov_row=raw["oov_row"],
    )
