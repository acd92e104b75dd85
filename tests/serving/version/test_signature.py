from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from serving.version.manifest import MANIFEST
from serving.version.signature import KEY, SIGNATURE
from serving.version.store import Store
from tests.serving.version.store_support import PROVENANCE
from towers.errors import BundleError, ConfigError

SECRET = "a key of the publisher"


@pytest.fixture
def signed(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with a version that was signed; the key is in the environment."""
    monkeypatch.setenv(KEY, SECRET)
    with store.staging() as staged:
        (staged / "users.parquet").write_text("users")
        store.publish(staged, PROVENANCE)
    store.activate(1)
    return store


def test_what_the_key_has_signed_is_opened(signed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert signed.open().version == 1
    monkeypatch.delenv(KEY)
    assert signed.open().version == 1


def test_what_it_has_not_is_refused(signed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = signed.open().path
    monkeypatch.setenv(KEY, "the key of somebody else")
    with pytest.raises(BundleError, match=r"expected a signature .* received another"):
        signed.open(verify=False)
    monkeypatch.setenv(KEY, SECRET)
    (folder / SIGNATURE).rename(folder / "kept")
    with pytest.raises(BundleError, match="received none"):
        signed.open(verify=False)
    (folder / "kept").rename(folder / SIGNATURE)
    signed.open()


def test_a_forged_version_with_right_checksums_is_refused(
    signed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = signed.open().path
    monkeypatch.delenv(KEY)
    other = Store(tmp_path / "other")
    with other.staging() as staged:
        (staged / "users.parquet").write_text("forged")
        other.publish(staged, PROVENANCE)
    for name in ("users.parquet", MANIFEST):
        shutil.copy(tmp_path / "other" / "versions" / "1" / name, folder / name)
    signed.open()  # it is whole
    monkeypatch.setenv(KEY, SECRET)
    with pytest.raises(BundleError, match="received another"):
        signed.open(verify=False)
    assert json.loads((folder / MANIFEST).read_text())["version"] == 1


def test_a_short_key_is_none(signed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "short")
    with pytest.raises(ConfigError, match="at least 16 characters, received 5"):
        signed.open()
