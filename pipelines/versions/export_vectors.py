"""Export a version's vectors, with their ids beside, for programs that know nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.atomic import make_folder
from serving.search.index import Vectors
from serving.version.bundle import Bundle
from serving.version.embeddings import Embeddings
from serving.version.store import Store, open_bundle
from towers.errors import ConfigError
from towers.extras import import_extra
from towers.features.schema import SIDES, Side

VectorFormat = Literal["parquet", "npy", "faiss"]

IDS, ABOUT = "ids.parquet", "about.json"

GEOMETRY = {
    "user": "[1, pooled]: the inner product with an item's vector is the match score",
    "item": "[item bias, pooled]: the inner product with a user's vector is the match score",
}
"""What the coordinates are, by side."""


def export_vectors(
    models: str | Path,
    out: str | Path,
    *,
    side: Side,
    format: VectorFormat,
    version: int | None = None,
) -> int:
    """Write all vectors of a side into the new folder `out`, which is there whole or not at all.

    | format | files |
    |---|---|
    | parquet | vectors.parquet: `id`, and `vector`, lists of float32 |
    | npy | vectors.npy: float32 [n, 1 + d]; ids.parquet: `id`, in the same order |
    | faiss | vectors.faiss: an IndexFlatIP of them, in the same order; ids.parquet |

    Beside them, about.json says the version and what the coordinates are.

    Args:
        models: a models directory, or one version's folder.
        out: the folder; it may exist if it is empty.
        side: user or item.
        format: of the files.
        version: which; default: the current.

    Returns:
        How many vectors were written.

    Raises:
        BundleError: there is no such version, or it is damaged.
        ConfigError: the side or the format is unknown, `out` has files, or faiss is not installed.
    """
    out = Path(out)
    writers = {"parquet": _write_parquet, "npy": _write_npy, "faiss": _write_faiss}
    if format not in get_args(VectorFormat):
        raise ConfigError(f"--vectors: expected one of {list(writers)}, received {format!r}")
    if side not in SIDES:
        raise ConfigError(f"--side: expected one of {list(SIDES)}, received {side!r}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: expected no folder yet, or an empty one; choose another name")
    if format == "faiss":
        _import_faiss()
    bundle = open_bundle(Path(models)) if version is None else Store(Path(models)).open(version)
    found = Embeddings.read(bundle.users if side == "user" else bundle.items)
    out.parent.mkdir(parents=True, exist_ok=True)
    with make_folder(out) as folder:
        write: Callable[[Vectors, pa.Array, Path], None] = writers[format]
        write(found.vectors, found.ids.values, folder)
        (folder / ABOUT).write_text(json.dumps(_about(bundle, found, side=side), indent=2) + "\n")
    return len(found.vectors)


def _about(bundle: Bundle, found: Embeddings, *, side: Side) -> dict[str, object]:
    return {
        "version": bundle.version,
        "schema_fingerprint": bundle.manifest.schema_fingerprint,
        "side": side,
        "id_column": found.id_column,
        "vectors": len(found.vectors),
        "dimensions": int(found.vectors.shape[1]),
        "coordinates": GEOMETRY[side],
    }


def _write_parquet(vectors: Vectors, ids: pa.Array, folder: Path) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({"id": ids, "vector": lists}), folder / "vectors.parquet")


def _write_npy(vectors: Vectors, ids: pa.Array, folder: Path) -> None:
    np.save(folder / "vectors.npy", vectors)
    pq.write_table(pa.table({"id": ids}), folder / IDS)


def _write_faiss(vectors: Vectors, ids: pa.Array, folder: Path) -> None:
    faiss = _import_faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    faiss.write_index(index, str(folder / "vectors.faiss"))
    pq.write_table(pa.table({"id": ids}), folder / IDS)


def _import_faiss() -> ModuleType:
    """Import faiss.

    Raises:
        ConfigError: it is not installed.
    """
    return import_extra("faiss", extra="faiss", task="--vectors faiss")
