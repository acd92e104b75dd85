from __future__ import annotations

import tomllib
from typing import Literal

import pytest
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from towers.errors import ConfigError
from towers.typed import STRICT, parse


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Inner:
    size: PositiveInt
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.size == 13:
            raise ConfigError("size: expected any number but 13, received 13; choose another")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Outer:
    inner: Inner
    rate: float = 0.5
    names: tuple[str, ...] = ()
    pair: tuple[int, int] = (1, 2)


def read(text: str) -> Outer:
    return parse(Outer, tomllib.loads(text), where="run.toml")


def test_values_keep_their_types_and_defaults_fill_the_rest() -> None:
    config = read('rate = 2\nnames = ["x", "y"]\npair = [3, 4]\n[inner]\nsize = 7')
    assert config == Outer(inner=Inner(size=7), rate=2.0, names=("x", "y"), pair=(3, 4))
    assert isinstance(config.rate, float)
    assert config.inner.kind == "a"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[inner]\nsize = 1\nsiez = 2", "inner.siez: unknown key, received 2"),
        ("", "inner: required, but not given; add it"),
        ("[inner]", "inner.size: required, but not given; add it"),
        ("inner = 5", "inner: .* received 5"),
        ('[inner]\nsize = "7"', "inner.size: Input should be a valid integer, received '7'"),
        ("[inner]\nsize = 7.0", "inner.size: Input should be a valid integer, received 7.0"),
        ("[inner]\nsize = true", "inner.size: Input should be a valid integer, received True"),
        ("[inner]\nsize = 0", "inner.size: Input should be greater than 0, received 0"),
        ("[inner]\nsize = 1\nkind = 'c'", "inner.kind: Input should be 'a' or 'b', received 'c'"),
        ("rate = '1'\n[inner]\nsize = 1", "rate: Input should be a valid number, received '1'"),
        ("names = 'x'\n[inner]\nsize = 1", "names: .* received 'x'"),
        ("names = ['x', 2]\n[inner]\nsize = 1", "names.1: .*valid string, received 2"),
        ("pair = [1]\n[inner]\nsize = 1", "pair.1: required"),
    ],
)
def test_a_fault_names_the_key_what_was_expected_and_what_was_received(
    text: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"^run.toml: 1 problem[^\n]*\n  {problem}"):
        read(text)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read("rate = 'x'\nfolds = 3\n[inner]\nsize = -1")
    assert "3 problem(s)" in str(caught.value)
    assert all(key in str(caught.value) for key in ("rate:", "folds:", "inner.size:"))


def test_a_dataclass_s_own_check_is_told_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^run.toml: size: expected any number but 13"):
        read("[inner]\nsize = 13")


def test_a_configuration_does_not_change() -> None:
    config = read("[inner]\nsize = 7")
    with pytest.raises(AttributeError):
        config.rate = 1.0  # type: ignore[misc]
