"""RunConfig: everything that one run needs, read from one TOML file."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from pipelines.behaviours import check_histories, check_test
from pipelines.rank_config import RankConfig
from pipelines.results import metric_names
from pipelines.table_config import DataConfig, InteractionsTable
from pipelines.tracking import TrackingConfig
from serving.version.saved_models.names import check_input_names
from towers.errors import ConfigError
from towers.features.kinds import Features
from towers.features.schema import Schema
from towers.interactions.member import Member
from towers.typed import STRICT, parse

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitConfig:
    """How interactions are divided into training, validation and test."""

    by: Literal["time", "random"] | None = None
    """`time`: the latest interactions are held out; `random`: some of each user's. Default:
    by time where the interactions have timestamps."""
    test_fraction: Fraction = 0.2
    """The share of interactions held out for the final figures; 0 trains on everything."""
    validation_fraction: Fraction = 0.1
    """The share of the rest that decides when to stop."""
    test: InteractionsTable | None = None
    """Test interactions in a table of their own, in place of `test_fraction`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The factorization machine, or another member of its family."""

    interaction: Member = "fm"
    """How features meet; see docs/family.md. `fm`: the factorization machine; `fwfm`: with a weight
    for each pair of fields; `ffm`: with a vector of each feature for each field that it meets;
    `fm3`: with triples of features."""
    field_rank: PositiveInt | None = None
    """With `fwfm`, the rank of the weights between user and item fields: vectors have so many times
    `embedding_dim` coordinates. Default: a weight for each pair, and so many times the number of
    user fields or of item fields, whichever are fewer."""
    embedding_dim: PositiveInt = 128
    """k, the length of each feature vector."""
    init: Literal["spectral", "normal"] = "spectral"
    """Where vectors start. `normal`: at random. `spectral`, a few epochs ahead where users have a
    history: items at the leading singular vectors of the normalized interactions, and the features
    of items and users where the regression on them places these. With `--from`, only new items
    start there, among the old ones; other new tokens, and with `normal` all, start as the unknown
    tokens that they were."""
    init_norm: PositiveFloat = 0.32
    """Root mean square length of the initial vectors."""
    start_power: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """p: with `spectral`, an item's initial vector is count^p times its singular vector, so that
    popular items come first. Default: chosen on validation together with the history's
    `popularity_power`, before anything is trained; 0.2 where nothing decides."""

    def __post_init__(self) -> None:
        if self.field_rank is not None and self.interaction != "fwfm":
            raise ConfigError(
                'model.field_rank: expected interaction = "fwfm", whose field weights have a rank, '
                f"received {self.interaction!r}; remove field_rank, or set the interaction"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NegativesConfig:
    """Where the negatives come from."""

    uniform: NonNegativeInt = 2048
    """Items drawn uniformly from those with a training interaction, shared by a batch; at most a
    quarter of them."""
    popularity: NonNegativeInt = 0
    """Items drawn with probability proportional to popularity^power, shared by a batch."""
    popularity_power: NonNegativeFloat = 0.75
    """The power of the popularity in the draw."""
    mined: NonNegativeInt = 16
    """Items drawn for each query from what the previous version retrieved for its user."""
    mined_ranks: tuple[PositiveInt, PositiveInt] = (50, 500)
    """First and last rank (1 = best) of the previous version's retrieval to draw from."""
    explicit: NonNegativeInt = 16
    """Items drawn for each query from those that its user has turned down: explicit negatives, of
    behaviours with role = "negative"."""
    explicit_share: Fraction = 0.1
    """The share of explicit negatives in the loss of a positive whose user has some."""
    hardest: PositiveInt | None = None
    """The loss counts only this many of a query's negatives, those with the highest scores.
    Default: 15 times as many as a user's own items are to be expected in the shared sample, and
    at least 20; the denser the interactions, the more of the hardest are unlabelled positives."""

    def __post_init__(self) -> None:
        if self.uniform + self.popularity == 0:
            raise ConfigError(
                "training.negatives: expected uniform + popularity of at least 1, received 0; "
                "round 0 has no previous version to mine with"
            )
        if self.mined_ranks[0] > self.mined_ranks[1]:
            raise ConfigError(
                "training.negatives.mined_ranks: expected [first, last] with first <= last, "
                f"received {list(self.mined_ranks)}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LeastSquaresConfig:
    """The solver `als`: implicit least squares over all items; see docs/family.md."""

    unobserved: PositiveFloat | None = None
    """a: what each pair of a user and an item counts, where a positive counts 1. Default: 20 times
    the share of pairs that are positives, so that all pairs count 20 times as much as these."""
    penalty: PositiveFloat = 0.003
    """l: what a squared entry of a user's or an item's vector pays, for each positive that it has
    and `unobserved` times for each that it might have."""
    sweeps: PositiveInt = 12
    """How often users and items are solved at most; fewer where a sweep takes less than a
    thousandth off."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """How a round is fitted."""

    solver: Literal["sgd", "als"] = "sgd"
    """What fits the vectors. `sgd`: the epochs, by gradients of the hinge; `als`: before them, from
    `model.init` on, implicit least squares over all items, solved in closed form for users and
    items in turn. With `epochs = 0` it is all that fits them."""
    als: LeastSquaresConfig = dataclasses.field(default_factory=LeastSquaresConfig)
    """What `als` minimizes."""
    epochs: NonNegativeInt = 8
    """Passes over the training interactions at most. 0: publish the initial vectors, which take
    seconds. The initial vectors are validated too, and published where no epoch is better."""
    continued_epochs: PositiveInt = 3
    """The same of a run that continues from an earlier version (`--from`)."""
    patience: PositiveInt = 3
    """Stop after this many epochs without a better validation metric."""
    batch_size: PositiveInt | None = None
    """Queries (a user without one fold of its items) in a step. Default: between 64 and 256, so
    that an epoch has at least 100 steps where the data allow it."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Each epoch cuts every user's items into this many folds at random: a fold's items are the
    positives of a query, and other folds its history."""
    contexts: Literal["past", "others"] | None = None
    """Which folds are a query's history. `past`: folds are stretches of time, and only those before
    the positives', as a served history is; `others`: folds are drawn without regard to time, and
    all others. Default: `past` where the interactions have timestamps."""
    history_dropout: Fraction = 0.1
    """The share of queries that are trained without their history, as a newcomer comes."""
    context_dropout: Fraction = 0.5
    """The share of queries that are trained without their context, as requests without one come."""
    id_dropout: Fraction = 0.3
    """The share of users and items that a step trains as if their id were unknown, where they have
    other features: so that these carry weight, and unknown ids have a vector."""
    learning_rate: PositiveFloat = 8e-4
    """Of lazy Adam at the start, with 128 dimensions; with k it is sqrt(128 / k) times that, so
    that vectors move as far. A cosine takes it to zero over `epochs`."""
    first_order_rate: PositiveFloat = 0.1
    """Factor of the learning rate for first-order weights: at the full rate popularity is learned
    before, and in place of, what tells users apart."""
    user_weight_power: NonNegativeFloat = 0.5
    """g: each positive of a user with n of them counts n^-g in the loss, times its own weight; with
    1, all users count the same."""
    margin: PositiveFloat = 0.3
    """The hinge's margin between a positive's score and a negative's."""
    l2: NonNegativeFloat = 5e-3
    """Weight of the mean squared norm of a batch's query and item vectors."""
    positive_suppression: NonNegativeFloat = 0.0
    """t in word2vec's keep probability sqrt(t/f) + t/f of a positive whose item has share f of the
    interactions; 0 keeps all."""
    refit_on_all: bool = True
    """After validation chose the number of epochs, train again on training and validation."""
    cold_items: Literal["fair"] | Fraction = "fair"
    """The first-order weight of items whose ids training does not know. `fair`: what is best for
    the validation metric over all items, known and unknown, while known items keep nine tenths of
    theirs, but for a validation part by time that has unknown ones; a number: what gives these
    items that share of users' first places."""
    rounds: NonNegativeInt = 1
    """Refits with negatives mined by the previous round's published version."""
    negatives: NegativesConfig = dataclasses.field(default_factory=NegativesConfig)
    """Where the negatives come from."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """What is measured, over the full corpus."""

    k: tuple[PositiveInt, ...] = (10, 20, 50, 100)
    """Cut-offs of every metric at K."""
    metric: str = "recall@20"
    """The metric that decides when to stop and which round becomes current."""
    validation_users: PositiveInt = 3000
    """How many users are sampled to validate an epoch."""
    test_users: PositiveInt = 100_000
    """How many users are sampled for the final figures; each is ranked against every item."""
    leave_out: Literal["seen", "positives"] = "seen"
    """What is not recommended to a user again. `seen`: all that the user knows from training,
    positive or not, which serving leaves out with `exclude_seen`; `positives`: only the positives,
    as published figures on positives alone have it."""
    items: Literal["there", "all"] = "there"
    """What is ranked for a user. `there`: in a split by time, the items that are there by the time
    of the user's latest held-out positive, as far as `data.items.available_from` says; `all`: every
    item of the table. Without such dates both are the same."""
    promotion_margin: Literal["noise"] | Fraction = "noise"
    """How much worse than the current version a new one may be on the same held-out interactions
    and yet take its place. `noise`: two standard errors of the difference between the two over the
    users; a number: that share of the current one's figure."""
    cold_item_interactions: PositiveInt = 5
    """An item with fewer training interactions is a cold item."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IndexConfig:
    """The search index of the four directions."""

    kind: Literal["scann", "exact"] = "scann"
    """`scann`: a ScaNN index; `exact`: stock TensorFlow ops only."""
    recall: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """The share of the exact neighbours that the index must find, for each kind of query."""
    recall_k: PositiveInt = 100
    """How many neighbours that share is counted over."""
    on_miss: Literal["exact", "fail"] = "exact"
    """Where no index finds so many: `exact`: publish the direction with an exact index, and say so;
    `fail`: publish nothing."""
    sampled_queries: PositiveInt = 1000
    """How many queries are sampled to tune and to check the index: a half of them users by their
    activity, or items by their traffic, and a half newcomers, or items of any kind."""
    storage: Literal["float32", "bfloat16", "int8"] = "float32"
    """How ScaNN's trees keep the vectors that give the scores: `float32`, as they are; `bfloat16`
    or `int8`, in half or a quarter of the memory, with scores a little off (by about 0.5% or 1.4%
    of their spread). Indexes of fewer than 20,000 vectors, and those of kind `exact`, keep
    float32."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExportConfig:
    """The SavedModels."""

    k: PositiveInt = 100
    """How many candidates the default signature returns."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig:
    """One run: the tables, the schema, and every setting with its default."""

    data: DataConfig
    """The tables."""
    name: str = "fm-recall"
    """What the manifest and the report call the run."""
    seed: NonNegativeInt = 0
    """Decides every random draw: the same seed and data give the same model on one machine."""
    user: Features | None = None
    """The users' features; default: their history."""
    item: Features | None = None
    """The items' features; default: their id."""
    context: Features | None = None
    """Columns of the interactions that describe the moment (hour, device): features of the query,
    given with the request; see docs/events.md."""
    split: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    """What is held out."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The size of the model."""
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    """How it is fitted."""
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    """What is measured."""
    index: IndexConfig = dataclasses.field(default_factory=IndexConfig)
    """How candidates are searched."""
    export: ExportConfig = dataclasses.field(default_factory=ExportConfig)
    """What the SavedModels return."""
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    """Who is told of the run."""
    rank: RankConfig = dataclasses.field(default_factory=RankConfig)
    """The second stage, which `fm-recall rank` trains."""

    def __post_init__(self) -> None:
        check_histories(self.schema, self.data.kinds)
        test = self.split.test
        check_test(test.event if test else None, has_event=self.data.has_event)
        # what cannot work is refused here, not after the data was read and a model fitted
        check_input_names(self.schema.input_names("user"))
        check_input_names(self.schema.input_names("item"))
        ids, member = self.schema.item_id_feature, self.model.interaction
        if ids is not None and not ids.min_count and member != "fm":
            raise ConfigError(
                f'model.interaction: expected "fm" where item ids have min_count = 0, received '
                f"{member!r}: items that nobody has chosen are placed by vectors of their ids, "
                "which do not reach all coordinates of the others; set min_count = 1"
            )
        known = metric_names(self.evaluation.k)
        if self.evaluation.metric not in known:
            raise ConfigError(
                f"evaluation.metric: expected one of {known}, received "
                f"{self.evaluation.metric!r}; choose one of them, or add its cut-off to "
                "evaluation.k"
            )

    @property
    def schema(self) -> Schema:
        """The schema; without feature tables, users are their history and items their id."""
        interactions = self.data.interactions
        user_id = self.data.users.id if self.data.users else interactions.user
        item_id = self.data.items.id if self.data.items else interactions.item
        return Schema.of(
            user_id=user_id, item_id=item_id, user=self.user, item=self.item, context=self.context
        )

    def fingerprint(self) -> str:
        """A digest (hex, 16 characters) that changes when any setting does."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_config(path: str | Path) -> RunConfig:
    """Read a run's configuration; table paths become absolute, relative to the file's folder.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or value is wrong.
    """
    path = Path(path)
    return parse_config(read_toml(path), folder=path.parent, where=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file as plain values.

    Raises:
        ConfigError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; check the path") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def parse_config(raw: dict[str, Any], *, folder: Path, where: str) -> RunConfig:
    """Build a run's configuration from plain values; table paths are relative to `folder`.

    Raises:
        ConfigError: a key or value is wrong; the message begins with `where`.
    """
    raw = copy.deepcopy(raw)
    for table in file_tables(raw):
        table["path"] = str((folder / table["path"]).resolve())
    return parse(RunConfig, raw, where=where)


def file_tables(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """The raw TOML tables that name a file under `path`."""
    data, split = raw.get("data"), raw.get("split")
    found = [split.get("test")] if isinstance(split, dict) else []
    if isinstance(data, dict):
        found += [data.get(key) for key in ("interactions", "users", "items")]
        more = data.get("more_interactions")
        found += more if isinstance(more, list) else []
    tables = [table for table in found if isinstance(table, dict)]
    return [table for table in tables if isinstance(table.get("path"), str)]
