from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

from serving.server.access import tokens as module
from serving.server.access.tokens import Tokens
from serving.server.errors import ForbiddenError, UnauthenticatedError
from towers.errors import ConfigError

SECRET = "a secret of one shop"
FILE = f"""
[shop]
token = "{SECRET}"
rights = ["read", "write"]

[old]
token = "a secret that was once good"
rights = ["read"]
expires = 2020-01-01T00:00:00Z

[prometheus]
sha256 = "{hashlib.sha256(b"a secret of prometheus").hexdigest()}"
rights = ["admin"]
expires = 2999-01-01T00:00:00+02:00
"""


def bearer(token: str) -> str:
    return f"Bearer {token}"


def test_a_token_gives_its_rights_and_its_name() -> None:
    tokens = Tokens(text=FILE)
    assert tokens.check(bearer(SECRET), "read") == "shop"
    assert tokens.check(f"bearer  {SECRET} ", "write") == "shop"
    password = base64.b64encode(f"anyone:{SECRET}".encode()).decode()
    assert tokens.check(f"Basic {password}", "read") == "shop"
    assert tokens.check(bearer("a secret of prometheus"), "admin") == "prometheus"
    with pytest.raises(ForbiddenError, match="the right 'admin', received one with"):
        tokens.check(bearer(SECRET), "admin")
    with pytest.raises(UnauthenticatedError, match="has expired"):
        tokens.check(bearer("a secret that was once good"), "read")


@pytest.mark.parametrize(
    "shown",
    [None, "", SECRET, "Bearer", bearer(""), bearer(SECRET[:-1]), bearer(SECRET + "x"), "Basic !",
     "Basic " + base64.b64encode(SECRET.encode()).decode(), "Basic /w==", "Bearer \ud800"],
)  # fmt: skip
def test_what_is_no_token_is_refused(shown: str | None) -> None:
    with pytest.raises(UnauthenticatedError) as error:
        Tokens(text=FILE).check(shown, "read")
    assert SECRET not in str(error.value)


def test_tokens_are_exchanged_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, now = tmp_path / "tokens.toml", 0.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    path.write_text(FILE)
    tokens = Tokens(path=path, text='[fixed]\ntoken = "from the environment"\nrights = ["read"]')
    assert tokens.check(bearer(SECRET), "read") == "shop"
    path.write_text(FILE.replace(SECRET, "another secret of the shop"))
    now = 2.0
    assert tokens.check(bearer("another secret of the shop"), "read") == "shop"
    assert tokens.check(bearer("from the environment"), "read") == "fixed"
    with pytest.raises(UnauthenticatedError):
        tokens.check(bearer(SECRET), "read")
    path.write_text("[shop")
    os.utime(path, (1, 1))
    now = 4.0
    assert tokens.check(bearer("another secret of the shop"), "read") == "shop"
    assert "tokens not read, those before stay" in caplog.text


@pytest.mark.parametrize(
    "text",
    ["", "[shop", "shop = 1", '[shop]\ntoken = "short"\nrights = ["read"]',
     f'[shop]\ntoken = "{SECRET}"\nrights = []', f'[shop]\ntoken = "{SECRET}"\nrights = ["all"]',
     f'[shop]\ntoken = "{SECRET}"', '[shop]\nrights = ["read"]',
     f'[shop]\ntoken = "{SECRET}"\nrights = ["read"]\nexpires = 2027-01-01T00:00:00'],
)  # fmt: skip
def test_tokens_that_are_not_as_they_should_be_are_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        Tokens(text=text)
    assert SECRET not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none: cannot be read"):
        Tokens(path=tmp_path / "none")
