from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.candidates.settings import load_settings, parse_channels
from towers.errors import ConfigError


def quotas(settings: Any) -> dict[str, int]:
    return {channel.name: channel.quota for channel in settings.plan}


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (100, {"u2i": 60, "i2i": 20, "u2u2i": 10, "popularity": 10}),
        (11, {"u2i": 7, "i2i": 2, "u2u2i": 1, "popularity": 1}),
        (1, {"u2i": 1}),
    ],
)
def test_default_channels_share_k(k: int, expected: dict[str, int]) -> None:
    plan = quotas(load_settings(None, changes={"k": k}))
    assert plan == expected
    assert list(plan) == list(expected)


def test_a_file_is_read_and_options_come_before_it(tmp_path: Path) -> None:
    path = tmp_path / "candidates.toml"
    path.write_text(
        'k = 30\nlatest = 9\n[[channels]]\nname = "popularity"\nquota = 4\n'
        '[[channels]]\nname = "u2i"\nquota = 20\n[where]\ncolumn = "year"\nequals = 1999\n'
    )
    settings = load_settings(path, changes={"k": 40})
    assert (settings.k, settings.latest) == (40, 9)
    assert list(quotas(settings).items()) == [("popularity", 4), ("u2i", 20)]
    assert settings.where == {"column": "year", "equals": 1999}


def test_channels_may_be_typed() -> None:
    assert parse_channels("u2i=60, i2i=20") == [
        {"name": "u2i", "quota": 60},
        {"name": "i2i", "quota": 20},
    ]
    for text in ("u2i", "u2i=", "u2i=-1", "u2i=60,"):
        with pytest.raises(ConfigError, match="expected name=quota"):
            parse_channels(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "k: "),
        ({"K": 5}, "K: unknown key"),
        ({"k": 5, "channels": parse_channels("u2i=4,i2i=2")}, "at most k = 5 together, received 6"),
        ({"channels": parse_channels("u2i=1,u2i=2")}, "expected each channel once"),
        ({"channels": parse_channels("u2x=1")}, "channels.0.name"),
        ({"channels": parse_channels("u2i=0")}, "channels.0.quota"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(None, changes=changes)
