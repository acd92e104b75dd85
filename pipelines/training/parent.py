"""The parent: the published version that a run continues from, and what is read from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import ModelConfig, RunConfig
from pipelines.data.hold_out import TrainedOn
from pipelines.evaluation.published import config_of
from pipelines.training.choose_start import fill_histories
from pipelines.training.initialize import interaction_of
from serving.version.bundle import Bundle
from serving.version.embeddings import read_ids
from serving.version.manifest import Manifest
from serving.version.store import Store
from serving.version.vocabulary_files import read_vocabulary
from towers.errors import BundleError, ConfigError
from towers.features.growth import inherited_rows
from towers.features.kinds import Feature, History
from towers.features.schema import SIDES, Schema, space_of
from towers.features.vocabulary import Vocabulary
from towers.layers import FeatureTable
from towers.two_tower import TwoTower

MODEL = ("embedding_dim", "interaction", "field_rank")
"""The settings that what is learned depends on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parent:
    """An earlier version: its vocabulary, its feature table, and its training interactions."""

    version: int
    vocabulary: Vocabulary
    weights: NDArray[np.float32]
    """First-order weights w [n_rows]; none of unknown item ids, which each version calibrates."""
    vectors: NDArray[np.float32]
    """Vectors v [n_rows, blocks k]."""
    trained_on: TrainedOn
    histories: tuple[History, ...]
    """The users' histories as the version has them."""
    config: RunConfig
    """The settings of the run that continues, whose model is as the version's."""
    learned: Mapping[str, NDArray[np.float32]]
    """The parameters of its interaction, by their names."""

    def teach(self, features: FeatureTable, vocabulary: Vocabulary) -> None:
        """Copy all that is learned into a table whose vocabulary extends the parent's."""
        rows = inherited_rows(vocabulary, n_old=self.vocabulary.n_rows)
        features.w.assign(self.weights[rows])
        features.v.assign(self.vectors[rows])
        for name, variable in features.interaction_weights.items():
            variable.assign(self.learned[name])

    def model(self, vocabulary: Vocabulary) -> TwoTower:
        """Its towers under a vocabulary that extends its own, to embed users and items.

        New tokens have the vectors of the unknown tokens that they were to it.
        """
        features = _empty_table(vocabulary, self.config)
        self.teach(features, vocabulary)
        return TwoTower(features, margin=0.0, hardest=1, l2=0.0)


def read_parent(
    store: Store, version: int, *, config: RunConfig, as_served: bool = False
) -> Parent:
    """Read a published version that a run with these settings can continue from.

    Args:
        store: the models directory.
        version: the version.
        config: the settings.
        as_served: whether items of unknown ids keep the first-order weight that they are served
            with, which is no start for items whose ids are known from now on.

    Raises:
        BundleError: there is no such version, it is damaged, or it has no checkpoint.
        ConfigError: its features or its number of dimensions are others.
    """
    bundle = store.open(version)
    histories = _check_settings(bundle.manifest, config)
    vocabulary = read_vocabulary(bundle.vocabulary)
    features = read_features(bundle, vocabulary, config=config)
    weights = features.w.numpy()
    feature = config.schema.item_id_feature
    if feature is not None and not as_served:
        space = vocabulary.tokens(space_of(feature, side="item", schema=config.schema))
        weights[space.oov_row] = 0.0
    return Parent(
        version=version,
        vocabulary=vocabulary,
        weights=weights,
        vectors=features.v.numpy(),
        trained_on=TrainedOn(
            version=version,
            ids={
                "user": read_ids(bundle.users).to_numpy(),
                "item": read_ids(bundle.items).to_numpy(),
            },
            path=bundle.seen,
        ),
        histories=histories,
        config=config,
        learned={name: one.numpy() for name, one in features.interaction_weights.items()},
    )


def continued(config: RunConfig, parent: Parent) -> RunConfig:
    """The settings of a run that continues: its epochs, only round 0, the parent's histories."""
    training, config = config.training, _with_histories_of(config, parent.histories)
    return dataclasses.replace(
        config,
        training=dataclasses.replace(training, epochs=training.continued_epochs, rounds=0),
    )


def _with_histories_of(config: RunConfig, histories: Sequence[History]) -> RunConfig:
    """The same settings with what a version chose for histories where these choose nothing."""
    before = {
        history.name: {"popularity_power": history.power, "scale": history.scale or 1.0}
        for history in histories
    }
    return fill_histories(config, lambda history: before.get(history.name, {}))


def model_of(manifest: Manifest) -> ModelConfig:
    """The settings of a version's model that what it has learned depends on."""
    earlier = manifest.config["model"]
    return ModelConfig(**{name: earlier[name] for name in MODEL if name in earlier})


def _check_settings(manifest: Manifest, config: RunConfig) -> tuple[History, ...]:
    """Refuse a version whose rows would mean something else under `config`.

    Returns:
        The users' histories as the version has them.

    Raises:
        ConfigError: the message names what differs.
    """
    where = f"version {manifest.version}"
    before = config_of(manifest)
    histories = before.schema.histories
    before, now = (_with_histories_of(one, histories) for one in (before, config))
    found = _differences(before.schema, now.schema)
    earlier = model_of(manifest)
    for name in MODEL:
        was, now_is = getattr(earlier, name), getattr(config.model, name)
        if was != now_is:
            found.append(f"model.{name} was {was}, is {now_is}")
    if found:
        lines = "\n".join(f"  {difference}" for difference in found)
        raise ConfigError(
            f"--from {manifest.version}: expected the features and dimensions of {where}, received "
            f"others\n{lines}\nset them back, or train from the start, without --from"
        )
    return histories


def _differences(before: Schema, after: Schema) -> list[str]:
    """Name what two schemas do not share; the order of features does not matter."""
    found = []
    for side in SIDES:
        columns = before.id_column(side), after.id_column(side)
        if columns[0] != columns[1]:
            found.append(f"the {side} id was {columns[0]!r}, is {columns[1]!r}")
        old, new = ({f.name: f for f in schema.tower_features(side)} for schema in (before, after))
        found += [f"{side} feature {name!r} is gone" for name in sorted(old.keys() - new.keys())]
        found += [f"{side} feature {name!r} is new" for name in sorted(new.keys() - old.keys())]
        for name in sorted(old.keys() & new.keys()):
            found += _changes(f"{side} feature {name!r}", old[name], new[name])
    return found


def _changes(what: str, before: Feature, after: Feature) -> list[str]:
    """Name the settings of a feature that changed; of another kind, that alone."""
    old, new = dataclasses.asdict(before), dataclasses.asdict(after)
    names = ["kind"] if before.kind != after.kind else sorted(old)
    return [
        f"{what}: {name} was {old[name]!r}, is {new[name]!r}"
        for name in names
        if old[name] != new[name]
    ]


def read_features(bundle: Bundle, vocabulary: Vocabulary, *, config: RunConfig) -> FeatureTable:
    """Read the feature table out of a version's checkpoint.

    Raises:
        BundleError: it has none.
    """
    prefix = bundle.checkpoint / "model"
    if not prefix.with_suffix(".index").exists():
        raise BundleError(
            f"{bundle.checkpoint}: expected the checkpoint that training continues from, found "
            "none; continue from another version, or train from the start, without --from"
        )
    features = _empty_table(vocabulary, config)
    model = tf.train.Checkpoint(features=features)
    status = tf.train.Checkpoint(model=model).read(str(prefix))
    status.assert_existing_objects_matched().expect_partial()
    return features


def _empty_table(vocabulary: Vocabulary, config: RunConfig) -> FeatureTable:
    """A table of a vocabulary to be filled with what was learned."""
    return FeatureTable(
        vocabulary.n_rows,
        embedding_dim=config.model.embedding_dim,
        init_scale=0.0,
        seed=0,
        interaction=interaction_of(config, vocabulary),
    )
