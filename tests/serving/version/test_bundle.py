import dataclasses
import os
import re
import shutil
from pathlib import Path

import pytest

from serving.version.bundle import Bundle, list_versions, parse_version
from serving.version.manifest import MANIFEST, Manifest, Provenance
from towers.errors import BundleError

PROVENANCE = Provenance(
    name="demo",
    schema_fingerprint="0123456789abcdef",
    config={"seed": 0},
    parent_version=None,
    mined=None,
    index={},
    metrics={},
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Version 3, with a version 1 beside it."""
    folder = tmp_path / "versions" / "3"
    (tmp_path / "versions" / "1").mkdir(parents=True)
    for name in ("items.parquet", "index/u2i/leaves.bin", "models/u2i/3/saved_model.pb"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode() * 1000)
    manifest = Manifest.of(folder, PROVENANCE, version=3)
    (folder / MANIFEST).write_text(manifest.to_json())
    return Bundle.read(folder)


def test_paths_are_those_of_the_layout(bundle: Bundle) -> None:
    assert bundle.version == 3
    named = {
        field: getattr(bundle, field).relative_to(bundle.path).as_posix()
        for field in ("vocabulary", "users", "items", "seen", "checkpoint", "metrics", "report")
    }
    assert named == {
        "vocabulary": "vocabulary",
        "users": "users.parquet",
        "items": "items.parquet",
        "seen": "seen.parquet",
        "checkpoint": "checkpoint",
        "metrics": "metrics.json",
        "report": "report.html",
    }
    assert (bundle.index("u2i") / "leaves.bin").is_file()
    assert (bundle.model("u2i") / "saved_model.pb").is_file()


def test_any_changed_byte_is_refused_by_file_name(bundle: Bundle) -> None:
    for name in bundle.manifest.files:
        path = bundle.path / name
        content = path.read_bytes()
        for position in (0, len(content) // 2, len(content) - 1):
            damaged = bytearray(content)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(BundleError, match=rf"1 file\(s\) .*\n  {name}: damaged: .*sha256"):
                bundle.verify()
        path.write_bytes(content)
    bundle.verify()


def test_each_fault_is_named_with_the_remedy(bundle: Bundle) -> None:
    (bundle.path / "items.parquet").write_bytes(b"short")
    (bundle.path / "index" / "u2i" / "leaves.bin").unlink()
    (bundle.path / "models" / "extra.txt").touch()
    with pytest.raises(BundleError) as caught:
        bundle.verify()
    assert str(caught.value).splitlines() == [
        f"{bundle.path}: 3 file(s) differ from manifest.json",
        "  index/u2i/leaves.bin: missing",
        "  items.parquet: damaged: expected 13000 bytes, received 5",
        "  models/extra.txt: unexpected",
        "publish again, or roll back to version 1",
    ]


def test_remedy_names_no_version_where_there_is_no_earlier_one(bundle: Bundle) -> None:
    shutil.rmtree(bundle.path.parent / "1")
    bundle.items.unlink()
    with pytest.raises(BundleError, match=r"missing\npublish again$"):
        bundle.verify()


@pytest.mark.parametrize("become", ["link", "folder", "pipe"])
def test_file_that_is_no_longer_a_plain_file_is_refused(bundle: Bundle, become: str) -> None:
    copy = bundle.items.rename(bundle.path.parent / "copy")
    if become == "link":
        bundle.items.symlink_to(copy)
    elif become == "folder":
        bundle.items.mkdir()
    else:
        os.mkfifo(bundle.items)
    expected = "missing" if become == "folder" else "damaged: not a plain file"
    with pytest.raises(BundleError, match=rf"items\.parquet: {expected}"):
        bundle.verify()


def test_file_that_cannot_be_read_is_refused_by_name(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("serving.version.bundle.FileRecord.of", fail)
    with pytest.raises(BundleError, match=r"items\.parquet: damaged: Input/output error"):
        bundle.verify()


def test_names_in_the_manifest_reach_nothing_outside_the_bundle(bundle: Bundle) -> None:
    outside = bundle.path.parent / "secret"
    outside.write_bytes(b"")
    files = bundle.manifest.files | {"../secret": bundle.manifest.files["items.parquet"]}
    changed = Bundle(bundle.path, dataclasses.replace(bundle.manifest, files=files))
    with pytest.raises(BundleError, match=r"1 file.*\n  \.\./secret: missing"):
        changed.verify()


def test_empty_folders_do_not_count(bundle: Bundle) -> None:
    """A copy through an object store loses them."""
    (bundle.path / "models" / "u2i" / "3" / "assets").mkdir()
    bundle.verify()


def test_read_verifies_unless_told_otherwise(bundle: Bundle) -> None:
    bundle.items.unlink()
    with pytest.raises(BundleError, match=re.escape("items.parquet: missing")):
        Bundle.read(bundle.path)
    assert Bundle.read(bundle.path, verify=False) == bundle


def test_bundle_read_through_a_link_stays_at_its_version(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("versions/3")
    assert Bundle.read(tmp_path / "current").path == bundle.path.resolve()


def test_list_versions_ignores_all_but_numbered_folders(tmp_path: Path) -> None:
    for name in ("10", "9", "0", "012", "-1", "1.5", "v3", "\u0663", ".staging-4"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").touch()
    assert list_versions(tmp_path) == [9, 10]
    assert list_versions(tmp_path / "none") == []


def test_parse_version() -> None:
    assert parse_version("12") == 12
    assert [parse_version(name) for name in ("", "0", "01", " 1", "+1", "1_0", "²")] == [None] * 7
