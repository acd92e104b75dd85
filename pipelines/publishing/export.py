"""Export: a fitted model as the files of a bundle, with its SavedModels and indexes."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import all_blocks
from pipelines.data.dataset import Dataset
from pipelines.data.events import Block, past_of
from pipelines.evaluation.length_spread import length_spread
from pipelines.progress import Reporter
from pipelines.publishing.draw_queries import draw_queries
from pipelines.publishing.index_direction import (
    INDEX_STEPS,
    IndexedDirection,
    describe,
    index_direction,
)
from pipelines.publishing.sample_requests import retrieval_queries, sample_features
from pipelines.results import AnnSetting
from pipelines.training.embed import Vectors
from pipelines.training.fit import Fitted
from serving.search.graph_search import Search
from serving.search.index import Pairs
from serving.version.embeddings import Embeddings
from serving.version.index_record import IndexRecord
from serving.version.saved_models.first_requests import write_warmup
from serving.version.saved_models.graphs import RetrievalModel, TowerModel
from serving.version.saved_models.names import FEATURES
from serving.version.seen import write_pairs
from serving.version.vocabulary_files import write_vocabulary
from towers.directions import DIRECTIONS, Direction
from towers.features.encoder import Encoder
from towers.features.schema import Side

LARGE = 2**26
"""Bytes of the vectors of an index whose memory is worth looking for, for a third of a second."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What the manifest and the report say about the indexes."""

    index: IndexRecord
    ann: list[AnnSetting]
    """The settings tried for u2i; empty where the index is exact or has no tree."""
    lines: list[str]
    """What is said of the index of each direction."""
    lengths: dict[str, dict[str, float]]
    """The spread of the lengths of each side's vectors."""


def export_bundle(
    fitted: Fitted,
    dataset: Dataset,
    *,
    vectors: Vectors,
    tables: Mapping[Side, pd.DataFrame],
    config: RunConfig,
    folder: Path,
    version: int,
    reporter: Reporter,
) -> Exported:
    """Write everything of a bundle but its manifest and its report into `folder`.

    Args:
        fitted: the model.
        dataset: what it was fitted on.
        vectors: of the dataset's users and items, by that model.
        tables: users and items, whose columns are kept to be shown.
        config: the settings.
        folder: where to write; exists.
        version: the version's number, which TF Serving's layout carries.
        reporter: shows progress.

    Raises:
        RecallGateError: an index finds less than the configured share of the exact neighbours, and
            the settings say that nothing is to be published then.
    """
    _write_tables(dataset, vectors, tables=tables, folder=folder)
    _copy_checkpoint(fitted, folder / "checkpoint")
    towers = {side: tower_model(dataset, fitted, side=side) for side in vectors}
    directions: dict[str, IndexedDirection] = {}
    features = {
        side: sample_features(dataset, tables[side], side=side, seed=config.seed) for side in towers
    }
    sources = draw_queries(
        fitted.model, dataset, vectors, size=config.index.sampled_queries, seed=config.seed
    )
    steps = len(towers) + len(DIRECTIONS) * (INDEX_STEPS + 1)
    with reporter.bar("export and index", steps) as advance:
        for side, tower in towers.items():
            queries = {"serving_default": features[side], FEATURES: features[side]}
            path = folder / "models" / f"{side}_tower" / str(version)
            _save(tower, path, queries=queries)
            advance(1)
        for name, direction in DIRECTIONS.items():
            search, directions[name] = index_direction(
                direction,
                vectors[direction.target],
                sources[direction.source],
                config=config.index,
                folder=folder / "index" / name,
                advance=advance,
            )
            model = _retrieval_model(
                towers[direction.source], search, direction, dataset=dataset, config=config
            )
            queries = retrieval_queries(
                features[direction.source], ids=_ids(dataset, direction), k=config.export.k
            )
            _save(model, folder / "models" / name / str(version), queries=queries)
            del search, model
            if vectors[direction.target].nbytes >= LARGE:
                gc.collect()  # graphs refer to themselves, and hold their index
            advance(1)
    records = {name: indexed.record for name, indexed in directions.items()}
    return Exported(
        index=IndexRecord(kind=config.index.kind, directions=records),
        ann=directions["u2i"].tried,
        lines=[describe(name, indexed) for name, indexed in directions.items()],
        lengths={side: length_spread(vectors[side]) for side in vectors},
    )


def tower_model(dataset: Dataset, fitted: Fitted, *, side: Side) -> TowerModel:
    """Join a side's encoder and the fitted feature table."""
    features = fitted.model.features
    return TowerModel(
        Encoder(dataset.schema, dataset.vocabulary, side=side, pasts=dataset.pasts),
        v=features.v,
        w=features.w if side == "item" else None,
        interaction=features.interaction,
        name=f"{side}_tower",
    )


def _write_tables(
    dataset: Dataset, vectors: Vectors, *, tables: Mapping[Side, pd.DataFrame], folder: Path
) -> None:
    """Write the vocabulary, users and items with their vectors, and who has seen what."""
    write_vocabulary(dataset.vocabulary, folder / "vocabulary")
    for side, table in tables.items():
        Embeddings.from_pandas(table, vectors[side]).write(folder / f"{side}s.parquet")
    blocks = all_blocks(dataset.interactions)
    write_pairs(folder / "seen.parquet", (_pairs(block, block.matrix) for block in blocks))
    if dataset.interactions.has_events:
        blocks = all_blocks(dataset.interactions)
        judged = (_pairs(block, block.judged) for block in blocks if block.judged is not None)
        write_pairs(folder / "judged.parquet", judged)
    for history in dataset.schema.histories:
        if history.behaviours is not None:
            blocks = all_blocks(dataset.interactions)
            (folder / "histories").mkdir(exist_ok=True)
            past = (_pairs(block, past_of(block, history)) for block in blocks)
            write_pairs(folder / "histories" / f"{history.name}.parquet", past)


def _pairs(block: Block, matrix: sparse.csr_array) -> Pairs:
    """The users and items of the entries of a block's matrix, by row."""
    places, items = matrix.tocoo().coords
    return block.users[places], items.astype(np.int64)


def _save(
    model: TowerModel | RetrievalModel,
    path: Path,
    *,
    queries: Mapping[str, Mapping[str, NDArray[Any]]],
) -> None:
    """Write a SavedModel to `path`, <name>/<version>, with the requests that warm it up."""
    model.save(path)
    write_warmup(path, model=path.parent.name, signatures=queries)


def _retrieval_model(
    tower: TowerModel,
    search: Search,
    direction: Direction,
    *,
    dataset: Dataset,
    config: RunConfig,
) -> RetrievalModel:
    """Join a tower and a corpus; the query's own id is left out where it is one of the inputs."""
    own = dataset.schema.id_input(direction.source)
    return RetrievalModel(
        tower,
        signature=tower.signature,
        direction=direction,
        search=search,
        ids=_ids(dataset, direction),
        k=config.export.k,
        own_id=own if direction.is_similarity else None,
    )


def _ids(dataset: Dataset, direction: Direction) -> NDArray[Any]:
    """The ids of a direction's targets by row."""
    return dataset.user_ids if direction.target == "user" else dataset.item_ids


def _copy_checkpoint(fitted: Fitted, folder: Path) -> None:
    """Keep the checkpoint that training can continue from."""
    folder.mkdir()
    source = Path(fitted.checkpoint)
    for path in source.parent.glob(f"{source.name}.*"):
        target = folder / path.name.replace(source.name, "model", 1)
        try:
            target.hardlink_to(path)
        except OSError:  # on another file system, or on one without links
            shutil.copyfile(path, target)
