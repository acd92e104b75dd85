"""The repository's own rules: nothing floats, nothing is tied to an address, CI runs everything."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def canonical(requirement: str) -> str:
    """The name of a requirement as package indexes compare it, without extras and versions."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_every_direct_dependency_is_pinned(pins: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    direct = {
        canonical(requirement)
        for group in (
            project["build-system"]["requires"],
            project["project"]["dependencies"],
            *project["project"]["optional-dependencies"].values(),
        )
        for requirement in group
    }
    assert direct - {canonical(pin) for pin in pins} == set()


def test_pins_are_names_and_versions_only(pins: list[str]) -> None:
    assert pins
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.+!]+", pin)] == []


def test_ci_runs_the_checks_and_then_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = re.findall(r"^timed make (\S+)$", script, flags=re.MULTILINE)
    assert targets[-2:] == ["check", "test"]


def test_check_runs_format_lint_types_and_the_import_rule() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    assert recipe is not None
    assert re.findall(r"\$\(BIN\)/(ruff \w+|\S+)", recipe[1]) == [
        "ruff format",
        "ruff check",
        "mypy",
        "lint-imports",
    ]


def test_every_data_file_of_a_package_is_installed_with_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    files = [
        path
        for package in ("towers", "serving", "pipelines")
        for path in (ROOT / package).iterdir()
        if path.is_file() and path.suffix != ".py"
    ]
    assert files
    assert [path for path in files if not any(path.match(pattern) for pattern in patterns)] == []
