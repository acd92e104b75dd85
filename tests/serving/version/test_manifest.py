import dataclasses
import hashlib
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.version.manifest import (
    FORMAT,
    FileRecord,
    Manifest,
    Provenance,
    installed_packages,
    list_files,
)
from tests.examples import examples
from towers.errors import BundleError
from towers.features.kinds import Categorical, History

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
finite = scalars.filter(lambda value: value not in (float("inf"), float("-inf")))
values = st.recursive(
    finite, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4
)
tables = st.dictionaries(st.text(), values, max_size=4)
records = st.builds(
    FileRecord,
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    bytes=st.integers(min_value=0, max_value=2**50),
)
manifests = st.builds(
    Manifest,
    name=st.text(),
    schema_fingerprint=st.text(),
    config=tables,
    parent_version=st.none() | st.integers(min_value=1),
    mined=st.none() | tables,
    index=tables,
    metrics=tables,
    version=st.integers(min_value=1),
    created=st.text(),
    packages=st.dictionaries(st.text(), st.text()),
    files=st.dictionaries(st.text(), records),
    format=st.just(FORMAT),
)


def provenance(**changed: Any) -> Provenance:
    fields: dict[str, Any] = {
        "name": "demo",
        "schema_fingerprint": "0123456789abcdef",
        "config": {"seed": 0},
        "parent_version": None,
        "mined": None,
        "index": {"u2i": {"kind": "exact", "recall": 1.0}},
        "metrics": {"recall@20": 0.193},
    }
    return Provenance(**fields | changed)


def manifest_of(folder: Path) -> Manifest:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.bin").write_bytes(b"abc")
    (folder / "b.txt").write_text("")
    return Manifest.of(folder, provenance(parent_version=2), version=3)


@settings(max_examples=examples(50))
@given(manifests)
def test_manifest_comes_back_from_its_json(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json(), where="m") == manifest


def test_config_with_tuples_comes_back_with_lists() -> None:
    """`dataclasses.asdict` of a run configuration has tuples."""
    fields = dataclasses.asdict(provenance(config={"k": (10, 20)}))
    manifest = Manifest(**fields, version=1, created="", packages={}, files={}, format=FORMAT)
    assert Manifest.from_json(manifest.to_json(), where="m").config == {"k": [10, 20]}


def test_manifest_describes_the_folder_and_who_made_it(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    assert manifest.version == 3
    assert manifest.parent_version == 2
    assert manifest.format == FORMAT
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest.created)
    assert manifest.files == {
        "b.txt": FileRecord(sha256=hashlib.sha256(b"").hexdigest(), bytes=0),
        "deep/a.bin": FileRecord(sha256=hashlib.sha256(b"abc").hexdigest(), bytes=3),
    }


def test_packages_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = installed_packages()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    monkeypatch.setattr("serving.version.manifest.PACKAGES", ("numpy", "no-such-distribution"))
    assert installed_packages().keys() == {"python", "numpy"}


def test_list_files_leaves_out_folders_and_the_manifest_at_the_top_only(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep").mkdir()
    for name in ("manifest.json", "deep/manifest.json", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("deep")
    assert list_files(tmp_path).keys() == {"deep/manifest.json", ".hidden", "link"}


@pytest.mark.parametrize("make", ["link to a file", "link to a folder", "pipe"])
def test_what_is_no_plain_file_is_refused_by_name(tmp_path: Path, make: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if make == "pipe":
        os.mkfifo(folder / "odd")
    else:
        (folder / "odd").symlink_to(tmp_path if make == "link to a folder" else __file__)
    with pytest.raises(BundleError, match=r"plain files only, received \['odd'\]"):
        Manifest.of(folder, provenance(), version=1)


@pytest.mark.parametrize("value", [float("nan"), np.float32(0.5), Path("x"), {1, 2}])
def test_value_that_is_not_json_is_refused_by_field(value: object) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: metrics: expected plain JSON"):
        provenance(metrics={"recall@20": value})


def test_truncated_manifest_is_refused_by_name(tmp_path: Path) -> None:
    text = manifest_of(tmp_path).to_json().rstrip()
    for length in range(len(text)):
        with pytest.raises(BundleError, match=r"^x/manifest\.json: "):
            Manifest.from_json(text[:length], where="x/manifest.json")


def test_manifest_with_any_one_character_changed_is_refused_by_name(tmp_path: Path) -> None:
    text = manifest_of(tmp_path).to_json()
    for position, character in enumerate(text):
        changed = text[:position] + chr(ord(character) ^ 1) + text[position + 1 :]
        with pytest.raises(BundleError, match=r"^x/manifest\.json: "):
            Manifest.from_json(changed, where="x/manifest.json")


def test_unknown_missing_and_wrong_keys_are_named(tmp_path: Path) -> None:
    body = json.loads(manifest_of(tmp_path).to_json())
    optional = {"tables_read"}  # what versions of earlier formats do not have
    for key in body.keys() - {"sha256"} - optional:
        rest = {name: value for name, value in body.items() if name != key}
        with pytest.raises(BundleError, match=rf"^m: 1 problem\(s\)\n  {key}: required"):
            Manifest.from_json(json.dumps(rest), where="m")
    with pytest.raises(BundleError, match="colour: unknown key, received 'red'"):
        Manifest.from_json(json.dumps(body | {"colour": "red"}), where="m")
    with pytest.raises(BundleError, match=r"version: .* received 0"):
        Manifest.from_json(json.dumps(body | {"version": 0}), where="m")
    body["files"]["b.txt"]["sha256"] = "ABC"
    with pytest.raises(BundleError, match=r"files\.b\.txt\.sha256: "):
        Manifest.from_json(json.dumps(body), where="m")


def test_manifest_without_its_own_checksum_is_refused(tmp_path: Path) -> None:
    body = json.loads(manifest_of(tmp_path).to_json())
    del body["sha256"]
    with pytest.raises(BundleError, match="damaged: expected sha256 None"):
        Manifest.from_json(json.dumps(body), where="m")


def test_newer_format_asks_for_an_upgrade_whatever_else_it_holds(tmp_path: Path) -> None:
    body = json.loads(manifest_of(tmp_path).to_json()) | {"format": FORMAT + 1, "colour": "red"}
    with pytest.raises(BundleError, match=rf"received {FORMAT + 1}, .*upgrade fm-recall"):
        Manifest.from_json(json.dumps(body), where="m")


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff\xfe"])
def test_file_that_is_no_manifest_is_refused_by_name(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(text)
    with pytest.raises(BundleError, match=rf"^{re.escape(str(path))}: .*damaged"):
        Manifest.read(path)


def test_no_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: missing"):
        Manifest.read(tmp_path / "manifest.json")


def test_file_larger_than_any_buffer_has_its_checksum(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 * 3
    (tmp_path / "large").write_bytes(content)
    record = FileRecord.of(tmp_path / "large")
    assert dataclasses.asdict(record) == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }


def manifest_with(config: dict[str, Any]) -> Manifest:
    fields = dataclasses.asdict(provenance(config=config))
    return Manifest(**fields, version=1, created="", packages={}, files={}, format=FORMAT)


def test_the_schema_is_that_of_the_configuration() -> None:
    users = {"id": "uid", "null_values": ["NULL"]}
    data = {"interactions": {"user": "u", "item": "i"}, "users": users, "items": None}
    past = {"kind": "history", "column": "past"}
    config = {"data": data, "user": {"features": [past]}, "item": None}
    manifest = manifest_with(config)
    assert list(manifest.null_values("user")) == ["NULL"]
    assert not manifest.null_values("item")
    schema = manifest.schema
    assert (schema.user_id, schema.item_id) == ("uid", "i")
    assert schema.history == History(column="past")
    assert schema.features("item") == (Categorical(column="i"),)
    with pytest.raises(BundleError, match=r"manifest\.json: .*; publish again"):
        _ = manifest_with({"seed": 0}).schema
