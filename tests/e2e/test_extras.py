"""What `pip install .` brings is enough for all but what the extras are for."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def installed_with(requirements: list[str]) -> set[str]:
    """The names of the packages that pip installs for some requirements."""
    waiting, found = [Requirement(text) for text in requirements], set[tuple[str, str]]()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            name = canonicalize_name(wanted.name)
            if (name, extra) in found:
                continue
            found.add((name, extra))
            needs = [Requirement(text) for text in metadata.requires(name) or ()]
            waiting += [
                need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


@pytest.fixture(scope="module")
def errors(project: dict[str, Any]) -> dict[str, str]:
    """What the modules raise where nothing but the dependencies can be imported."""
    core = installed_with(project["dependencies"])
    hidden = [
        name
        for name, owners in metadata.packages_distributions().items()
        if core.isdisjoint(map(canonicalize_name, owners))
    ]
    assert {"optuna", "pymilvus", "pytest"} <= set(hidden)
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("without_extras.py")],
        input=json.dumps(
            [name for name in hidden if name not in {"towers", "serving", "pipelines"}]
        ),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
    )
    answer: dict[str, str] = json.loads(result.stdout)
    return answer


def test_every_module_but_those_of_an_extra_is_imported_without_it(errors: dict[str, str]) -> None:
    assert {name for name in errors if not name.startswith("pipelines.tuning.")} == set()


def test_what_is_missing_is_said_with_the_command_that_installs_it(errors: dict[str, str]) -> None:
    assert errors["pipelines.tuning.tune"] == (
        "ConfigError: fm-recall tune: expected the package optuna, which is not installed; install "
        "the extra: pip install 'fm-recall[tuning]'"
    )


def test_developers_have_the_extras_that_the_tests_need(project: dict[str, Any]) -> None:
    brought = [Requirement(text) for text in project["optional-dependencies"]["dev"]]
    own = [one.extras for one in brought if one.name == project["name"]]
    assert own
    assert own[0] >= {"docs", "milvus", "tuning"}
