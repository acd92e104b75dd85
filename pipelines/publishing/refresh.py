"""Refresh: publish a version once more with today's trend of its items, without training."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.config import RunConfig, SplitConfig
from pipelines.data.blocks import HeldInteractions
from pipelines.data.dataset import Dataset, encode_dataset
from pipelines.data.engines import choose_engine
from pipelines.data.prepare import Prepared, prepare
from pipelines.data.recent import count_recent, trend_values
from pipelines.data.sources.frame_source import Frame
from pipelines.progress import Reporter
from pipelines.publishing.check_bundle import check_bundle
from pipelines.publishing.export import Exported, export_bundle
from pipelines.table_config import DataConfig
from pipelines.training.embed import Vectors
from pipelines.training.fit import Fitted
from pipelines.training.parent import read_features
from pipelines.training.trend import trend_row, with_trend
from serving.version.bundle import DATES, HELD_OUT, RECENT, Bundle
from serving.version.embeddings import Embeddings
from serving.version.manifest import Provenance
from serving.version.recent import Recent
from serving.version.seen import Seen
from serving.version.store import Store
from serving.version.tables_read import TABLES_READ
from serving.version.vocabulary_files import read_vocabulary
from towers.errors import ConfigError, DataError
from towers.features.schema import Side
from towers.two_tower import TwoTower
from towers.typed import parse

KEPT = ("metrics.json", "report.html", "judged.parquet", HELD_OUT, DATES, TABLES_READ)
"""The files that tell of the training and its tables, which stay as they are."""


def refresh(
    models: Path,
    interactions: Path | Frame,
    *,
    version: int | None = None,
    engine: str | None = None,
    master: str | None = None,
    reporter: Reporter | None = None,
) -> int:
    """Count again what was chosen of late, and publish the version with it as a new one.

    The new version has the vectors, the features and the seen items of the old one; of an item's
    vector only the bias changes, by the weight of the trend times its change. It becomes current
    if the old one is.

    Args:
        models: the models directory.
        interactions: a table like the one that the version was trained on, up to now: at least what
            came within the longest window. Items that the version does not know are left out.
        version: which, if not the current.
        engine: where the table is read; see `pipelines.run.run`.
        master: the URL of a Spark cluster.
        reporter: shows progress; silent by default.

    Returns:
        The number of the new version.

    Raises:
        BundleError: there is no such version, or it knows no windows.
        ConfigError: the table lacks a column, or has no times.
        DataError: rows break the rules of the table, or ids are of another type.
        RecallGateError: the new index does not reach the recall that publishing needs.
    """
    reporter, store = reporter or Reporter(), Store(models)
    bundle = store.open(version)
    before = Recent.read(bundle.recent)
    config = _config_of(bundle)
    with (
        reporter.stage("count what was chosen of late"),
        TemporaryDirectory(dir=models, prefix=".refresh-") as work,
    ):
        prepared = _read(config, interactions, Path(work), engine=engine, master=master)
        recent, in_window = _count(prepared, bundle, before, reporter=reporter)
    loaded = _add_trend_of_today(_load(bundle, config), in_window)
    with reporter.stage("export, check against exact, publish"), store.staging() as staged:
        number = store.version_of(staged)
        exported = export_bundle(
            loaded.fitted,
            loaded.data,
            vectors=loaded.vectors,
            tables=loaded.tables,
            config=config,
            folder=staged,
            version=number,
            reporter=reporter,
        )
        recent.write(staged / RECENT)
        for path in (bundle.path / name for name in KEPT):
            if path.exists():
                shutil.copyfile(path, staged / path.name)
        for line in exported.lines:
            reporter.say(f"  {line}")
        store.publish(staged, _provenance(bundle, exported), check=check_bundle)
    if store.current() == bundle.version:
        store.activate(number)
    return number


def _config_of(bundle: Bundle) -> RunConfig:
    """The settings of a version that have to do with what it publishes."""
    names = ("data", "user", "item", "context", "seed", "model", "index", "export")
    kept = {name: bundle.manifest.config[name] for name in names if name in bundle.manifest.config}
    return parse(RunConfig, kept, where=f"version {bundle.version}")


def _read(
    config: RunConfig,
    interactions: Path | Frame,
    work: Path,
    *,
    engine: str | None,
    master: str | None,
) -> Prepared:
    """Read and check the table, all of which counts.

    Raises:
        ConfigError: it has no times.
    """
    path = str(interactions.absolute()) if isinstance(interactions, Path) else ""
    table = dataclasses.replace(config.data.interactions, path=path)
    if table.timestamp is None:
        raise ConfigError("data.interactions.timestamp: expected a column of times, received none")
    alone = RunConfig(
        data=DataConfig(
            interactions=table,
            on_bad_rows=config.data.on_bad_rows,
            behaviours=config.data.behaviours,
        ),
        split=SplitConfig(test_fraction=0.0, validation_fraction=0.0),
    )
    frames = None if isinstance(interactions, Path) else {"interactions": interactions}
    plan = choose_engine(alone, asked=engine if path else engine or "memory", master=master)
    return prepare(alone, work / "prepared", frames=frames, plan=plan)


def _count(
    prepared: Prepared, bundle: Bundle, before: Recent, *, reporter: Reporter
) -> tuple[Recent, NDArray[np.int64] | None]:
    """Count the choices of the version's items within its windows: of popularity, and of the trend.

    Raises:
        DataError: ids are of another type than the version's.
    """
    ids = Embeddings.read(bundle.items).ids
    given = prepared.items[prepared.items.columns[0]]
    is_integer = pd.api.types.is_integer_dtype(given.dtype)
    if is_integer != (ids.dtype == np.int64):
        names = {True: "integers", False: "text"}
        raise DataError(
            f"{given.name}: expected {names[not is_integer]}, as in version {bundle.version}, "
            f"received {names[is_integer]}; convert the ids"
        )
    windows = [before.window]
    windows += [] if before.trend_window is None else [before.trend_window]
    until, found = count_recent(prepared.stored("train"), windows)
    rows = ids.find(given.to_numpy(ids.dtype))
    counts = np.zeros((len(windows), len(ids)), dtype=np.int64)
    counts[:, rows[rows >= 0]] = found[:, rows >= 0]
    if (n_unknown := int(np.count_nonzero(rows < 0))) > 0:
        reporter.say(f"  {n_unknown:,} items that the version does not know are left out")
    reporter.say(f"  {counts[0].sum():,} choices within the latest {before.window:g}")
    recent = dataclasses.replace(before, counts=counts[0], until=until)
    return recent, counts[1] if len(windows) > 1 else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Loaded:
    """All that a version is exported from."""

    data: Dataset
    tables: Mapping[Side, pd.DataFrame]
    vectors: Vectors
    fitted: Fitted


def _load(bundle: Bundle, config: RunConfig) -> _Loaded:
    """Read all that a version was exported from; the data of items are without their trend."""
    vocabulary = read_vocabulary(bundle.vocabulary)
    stored: dict[Side, Embeddings] = {
        "user": Embeddings.read(bundle.users),
        "item": Embeddings.read(bundle.items),
    }
    tables = {side: one.table.to_pandas() for side, one in stored.items()}
    trend = config.schema.trend
    shape = (len(tables["user"]), len(tables["item"]))
    seen = Seen.read(bundle.seen, shape=shape)
    data = encode_dataset(
        config.schema,
        vocabulary,
        users=tables["user"],
        items=tables["item"].drop(columns=[] if trend is None else trend.column),
        interactions=HeldInteractions(seen.matrix.astype(np.float32)),
    )
    features = read_features(bundle, vocabulary, config=config)
    fitted = Fitted(
        model=TwoTower(features, margin=0.0, hardest=1, l2=0.0),
        best_epoch=0,
        records=(),
        checkpoint=str(bundle.checkpoint / "model"),
        mined=None,
    )
    vectors = {side: one.vectors for side, one in stored.items()}
    return _Loaded(data=data, tables=tables, vectors=vectors, fitted=fitted)


def _add_trend_of_today(loaded: _Loaded, in_window: NDArray[np.int64] | None) -> _Loaded:
    """Give items the trend that their choices within its window say, [n_items], and its bias.

    Without a window, items keep the trend that they have.
    """
    schema, row = loaded.data.schema, trend_row(loaded.data.schema, loaded.data.vocabulary)
    if schema.trend is None or row is None:
        return loaded
    before = loaded.tables["item"][schema.trend.column].to_numpy(np.float32)
    values = before
    if in_window is not None:
        values = trend_values(in_window, loaded.data.interactions.item_counts)
    data, tables = with_trend(loaded.data, loaded.tables, values)
    weight = float(loaded.fitted.model.features.w[row])
    change = np.nan_to_num(values).astype(np.float64) - np.nan_to_num(before)
    items = loaded.vectors["item"].copy()
    items[:, 0] += weight * change
    return dataclasses.replace(
        loaded, data=data, tables=tables, vectors=loaded.vectors | {"item": items}
    )


def _provenance(bundle: Bundle, exported: Exported) -> Provenance:
    """What the manifest records: the version that this one is, but for its trend."""
    manifest = bundle.manifest
    return Provenance(
        name=manifest.name,
        schema_fingerprint=manifest.schema_fingerprint,
        config=manifest.config,
        parent_version=bundle.version,
        mined=manifest.mined,
        index=exported.index.to_dict(),
        metrics=manifest.metrics,
    )
