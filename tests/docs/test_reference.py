"""docs/configuration.md and docs/cli.md say what the code says."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["configuration.md", "cli.md"])
def test_page_is_up_to_date(page: str, generate: ModuleType) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == generate.PAGES[page](), "run: make docs"


def test_every_configuration_class_is_documented(generate: ModuleType) -> None:
    shown = set(generate.SECTIONS.values())
    modules: list[Any] = [generate.config, generate.table_config]
    defined = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    assert {kind for kind in defined if dataclasses.is_dataclass(kind)} - shown == {
        generate.table_config.FileFormat
    }


def test_every_setting_says_what_it_does(generate: ModuleType) -> None:
    silent = [
        f"{kind.__name__}.{name}"
        for kind in generate.SECTIONS.values()
        for name, text in generate._field_texts(kind).items()
        if not text and name not in {"kind", "column"}
    ]
    assert silent == []


def test_every_option_has_a_help_text(generate: ModuleType) -> None:
    root: Any = generate.typer.main.get_command(generate.app)
    silent = [
        f"{name} {parameter.name}"
        for name, command in root.commands.items()
        for parameter in command.params
        if not parameter.help
    ]
    assert silent == []
