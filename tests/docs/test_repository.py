"""The repository's own rules: nothing floats, nothing is tied to an address, CI runs everything."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Callable
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
    own = {canonical(project["project"]["name"])}  # an extra may bring others
    assert direct - own - {canonical(pin) for pin in pins} == set()


def test_pins_are_names_and_versions_only(pins: list[str]) -> None:
    assert pins
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.+!]+", pin)] == []


@pytest.fixture
def ci(tmp_path: Path) -> Callable[[str], tuple[bool, set[str]]]:
    """Run CI's script with a `make` that only notes its target, and fails for one of them.

    Whether all is well, and the targets.
    """
    noted, make = tmp_path / "noted", tmp_path / "make"

    def run(failing: str) -> tuple[bool, set[str]]:
        make.write_text(f'#!/bin/sh\necho "$1" >> "{noted}"\ntest "$1" != "{failing}"\n')
        make.chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        ended = subprocess.run(
            ["bash", ROOT / ".ci" / "run"],
            env={**os.environ, "PATH": path},
            capture_output=True,
            check=False,
        )
        return ended.returncode == 0, set(noted.read_text(encoding="utf-8").split())

    return run


def test_ci_sets_up_and_then_checks_and_tests(ci: Callable[[str], tuple[bool, set[str]]]) -> None:
    assert ci("") == (True, {"setup", "check", "test"})


@pytest.mark.parametrize(
    ("failing", "begun"),
    [
        ("setup", {"setup"}),
        ("check", {"setup", "check", "test"}),
        ("test", {"setup", "check", "test"}),
    ],
)
def test_ci_fails_with_whatever_fails(
    ci: Callable[[str], tuple[bool, set[str]]], failing: str, begun: set[str]
) -> None:
    assert ci(failing) == (False, begun)


@pytest.mark.parametrize("tool", ["ruff format --check", "ruff check", "mypy", "lint-imports"])
def test_check_runs_format_lint_types_and_the_import_rule(tool: str) -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "check"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"/{tool}" in planned.stdout


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
