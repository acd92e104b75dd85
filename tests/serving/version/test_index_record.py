from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from serving.search.scann_index import ScannSettings, Storage
from serving.version.index_record import DirectionIndex, IndexRecord
from towers.directions import DIRECTIONS
from towers.errors import BundleError


def record(storage: Storage) -> IndexRecord:
    settings = ScannSettings(num_leaves=20, storage=storage)
    directions = {name: DirectionIndex(settings=settings, recall=0.96) for name in DIRECTIONS}
    return IndexRecord(kind="scann", directions=directions)


@pytest.mark.parametrize("storage", get_args(Storage))
def test_what_is_written_is_read(storage: Storage) -> None:
    raw = json.loads(json.dumps(record(storage).to_dict()))
    assert IndexRecord.from_dict(raw, where="manifest.json") == record(storage)


def test_an_index_from_before_storages_has_float32() -> None:
    raw: dict[str, Any] = record("float32").to_dict()
    for direction in raw["directions"].values():
        del direction["settings"]["storage"]
    assert IndexRecord.from_dict(raw, where="manifest.json") == record("float32")


def test_an_index_of_shells_is_read_with_its_trees() -> None:
    shells = (ScannSettings(num_leaves=None), ScannSettings(num_leaves=20))
    found = DirectionIndex(shells=shells, recall=0.96, missed="")
    several = IndexRecord(kind="scann", directions=dict.fromkeys(DIRECTIONS, found))
    raw = json.loads(json.dumps(several.to_dict()))
    assert IndexRecord.from_dict(raw, where="manifest.json") == several
    assert found.trees == shells
    assert DirectionIndex(shells=shells[:1], recall=1.0).trees == ()
    assert DirectionIndex(settings=shells[1], recall=1.0).trees == shells[1:]


def test_an_index_from_before_shells_has_one_tree() -> None:
    raw: dict[str, Any] = record("float32").to_dict()
    for direction in raw["directions"].values():
        del direction["shells"], direction["missed"]
    assert IndexRecord.from_dict(raw, where="manifest.json") == record("float32")


def test_a_storage_that_does_not_exist_is_refused() -> None:
    raw: dict[str, Any] = record("float32").to_dict()
    raw["directions"]["u2i"]["settings"]["storage"] = "int4"
    with pytest.raises(BundleError, match=r"settings.storage: Input should be .* received 'int4'"):
        IndexRecord.from_dict(raw, where="manifest.json")
