from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipelines.config import (
    EvaluationConfig,
    IndexConfig,
    RunConfig,
    SplitConfig,
    TrainingConfig,
    load_config,
)
from towers.errors import ConfigError
from towers.features.kinds import Categorical, Features, History, MultiValued
from towers.typed import parse

MINIMAL = """
[data.interactions]
path = "clicks.csv"
"""
FULL = """
name = "shop"
seed = 7

[data]
on_bad_rows = "quarantine"

[data.interactions]
path = "clicks.csv"
user = "customer"
item = "article"
timestamp = "at"
rating = "stars"
positive_rating = 4

[data.users]
path = "people/users.parquet"
id = "customer_id"

[data.items]
path = "/elsewhere/items.csv"
id = "article_id"
separator = "::"

[split]
by = "time"

[split.test]
path = "../test.csv"

[user]
features = [{ kind = "history", latest = 50 }]

[item]
features = [
    { kind = "categorical", column = "article_id" },
    { kind = "multi_valued", column = "tags", weights = "tag_weights" },
]

[training]
epochs = 2
learning_rate = 1

[training.negatives]
mined_ranks = [10, 20]

[evaluation]
k = [5]
metric = "ndcg@5"
"""


def load(folder: Path, text: str) -> RunConfig:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_a_path_is_enough_and_the_rest_has_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.data.interactions.path == str(tmp_path / "clicks.csv")
    assert (config.data.interactions.user, config.data.interactions.item) == ("user_id", "item_id")
    assert (config.data.users, config.data.items, config.split.test) == (None, None, None)
    assert config.data.on_bad_rows == "fail"
    assert (config.name, config.seed) == ("fm-recall", 0)
    assert (config.split, config.training) == (SplitConfig(), TrainingConfig())
    assert (config.evaluation, config.index) == (EvaluationConfig(), IndexConfig())
    assert config.evaluation.metric == "recall@20"
    assert config.schema.user == Features(features=(History(),))
    assert config.schema.item == Features(features=(Categorical(column="item_id"),))


def test_everything_that_is_given_is_kept(tmp_path: Path) -> None:
    config = load(tmp_path, FULL)
    assert (config.name, config.seed) == ("shop", 7)
    assert config.data.interactions.positive_rating == 4.0
    assert config.data.items is not None
    assert config.data.items.separator == "::"
    assert config.training.learning_rate == 1.0
    assert config.training.negatives.mined_ranks == (10, 20)
    assert config.evaluation.k == (5,)
    schema = config.schema
    assert (schema.user_id, schema.item_id) == ("customer_id", "article_id")
    assert schema.history == History(latest=50)
    assert schema.features("item")[1] == MultiValued(column="tags", weights="tag_weights")


def test_paths_are_relative_to_the_file_wherever_it_is_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "run.toml").write_text(FULL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = load_config("configs/run.toml")
    tables = (config.data.interactions, config.data.users, config.data.items, config.split.test)
    assert [table.path for table in tables if table is not None] == [
        str(folder / "clicks.csv"),
        str(folder / "people" / "users.parquet"),
        "/elsewhere/items.csv",
        str(tmp_path / "test.csv"),
    ]


def test_the_python_api_needs_no_path() -> None:
    config = parse(RunConfig, {"data": {"interactions": {}}}, where="config")
    assert config.data.interactions.path == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "data: required, but not given; add it"),
        ("[data]", "data.interactions: required, but not given; add it"),
        ("[data]\ninteractions = 5", "data.interactions: .* received 5"),
        (MINIMAL + "usr = 'u'", "data.interactions.usr: unknown key, received 'u'"),
        (MINIMAL + "user = 1", "data.interactions.user: .*valid string, received 1"),
        ("seed = -1" + MINIMAL, "seed: .*greater than or equal to 0, received -1"),
        ("seed = 1.5" + MINIMAL, "seed: .*valid integer, received 1.5"),
        (MINIMAL + "[training]\nepochs = -1", "training.epochs: .*or equal to 0, received -1"),
        (MINIMAL + "[training]\nfolds = 1", "training.folds: .*or equal to 2, received 1"),
        (MINIMAL + "[training]\nrefit_on_all = 1", "training.refit_on_all: .* received 1"),
        (MINIMAL + "[training]\nepoch = 3", "training.epoch: unknown key, received 3"),
        (MINIMAL + "[split]\ntest_fraction = 1.0", "split.test_fraction: .* received 1.0"),
        (MINIMAL + "[split]\nby = 'user'", "split.by: .*'time' or 'random', received 'user'"),
        (MINIMAL + "[index]\nkind = 'faiss'", "index.kind: .*'exact', received 'faiss'"),
        (MINIMAL + "[index]\nrecall = 1.1", "index.recall: .* received 1.1"),
        (MINIMAL + "[evaluation]\nk = 20", "evaluation.k: .* received 20"),
        (MINIMAL + "[data.users]\npath = 'u.csv'", "data.users.id: required"),
        (
            MINIMAL + "[user]\nfeatures = [{ kind = 'numeric' }]",
            "user.features.0.numeric.column: required",
        ),
    ],
)
def test_a_fault_names_the_file_the_key_and_both_values(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"run\.toml: 1 problem\(s\)\n  {message}"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "rating = 'stars'", "rating and positive_rating belong together"),
        (MINIMAL + "positive_rating = 3.5", "rating and positive_rating belong together"),
        (
            MINIMAL + "[training.negatives]\nuniform = 0",
            r"uniform \+ popularity of at least 1, received 0",
        ),
        (
            MINIMAL + "[training.negatives]\nmined_ranks = [9, 3]",
            r"first <= last, received \[9, 3\]",
        ),
        (
            MINIMAL + "[item]\nfeatures = [{ kind = 'numeric', column = 'price' }]",
            "add a categorical item feature with column = 'item_id'",
        ),
        (
            MINIMAL + "[evaluation]\nmetric = 'recall@7'",
            r"evaluation\.metric: expected one of \['recall@10',.*received 'recall@7'",
        ),
        (
            MINIMAL + "[user]\nfeatures = [{ kind = 'numeric', column = 'zip code' }]",
            "feature 'zip code': expected .*; keep its column, and give the feature a name",
        ),
        (
            MINIMAL + "[user]\nfeatures = [{ kind = 'multi_valued', column = 'a', weights = '1' }]",
            "feature '1': expected .*weights_name",
        ),
        (MINIMAL + "item = 'item:token'", "feature 'item:token': expected .* a name of its own"),
        (
            MINIMAL + "[model]\ninteraction = 'ffm'\nfield_rank = 2",
            r"model\.field_rank: expected interaction = \"fwfm\", .*received 'ffm'",
        ),
        (
            MINIMAL
            + "[model]\ninteraction = 'fm3'\n[item]\n"
            + "features = [{ kind = 'categorical', column = 'item_id', min_count = 0 }]",
            r"model\.interaction: expected \"fm\" where item ids have min_count = 0",
        ),
        (
            MINIMAL + "[data.users]\npath = 'u'\nid = 'u'\navailable_from = 'born'",
            r"data\.users\.available_from: expected in data\.items alone, received 'born'",
        ),
        (
            MINIMAL + "[data.items]\npath = 'i'\nid = 'i'\navailable_from = 'out'",
            r"expected interactions with times .* set data\.interactions\.timestamp",
        ),
    ],
)
def test_settings_that_cannot_go_together_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"run\.toml: .*{message}"):
        load(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: no such configuration file"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: .*; check the path"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"run\.toml: not valid TOML: .*line 1"):
        load(tmp_path, "seed = x\n")
    (tmp_path / "latin.toml").write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml: not valid TOML: .*utf-8"):
        load_config(tmp_path / "latin.toml")


def test_the_fingerprint_tells_settings_apart_and_nothing_else(tmp_path: Path) -> None:
    config = load(tmp_path, FULL)
    assert config.fingerprint() == load(tmp_path, "# a remark" + FULL).fingerprint()
    assert len(config.fingerprint()) == 16
    lines = FULL.strip().split("\n")
    changed = {
        "seed = 7": "seed = 8",
        "epochs = 2": "epochs = 3",
        'path = "clicks.csv"': 'path = "other.csv"',
        "mined_ranks = [10, 20]": "mined_ranks = [10, 21]",
        "k = [5]": "k = [5, 6]",
        'features = [{ kind = "history", latest = 50 }]': 'features = [{ kind = "history" }]',
    }
    others = [
        load(tmp_path, "\n".join(changed[old] if line == old else line for line in lines))
        for old in changed
    ]
    digests = {other.fingerprint() for other in others}
    assert len(digests - {config.fingerprint()}) == len(changed)


def test_a_configuration_does_not_change(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
