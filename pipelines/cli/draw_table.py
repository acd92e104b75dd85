"""The style of the tables that commands print, and of what their cells say."""

from __future__ import annotations

import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def new_table() -> Table:
    """An empty table in the style of all tables here."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def print_table(console: Console, title: str, table: Table) -> None:
    """Print a table below its title."""
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)


def figure(value: float | None) -> str:
    """A figure as text, with digits that suit its size."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 1 else f"{value:,.1f}"


def setting(value: Any) -> str:
    """A setting or a figure as text; nothing where there is none."""
    match value:
        case None:
            return "-"
        case str():
            return value
        case float():
            return f"{value:.4g}"
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def cell(value: Any) -> str:
    """Write one value of a table's row."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4f}"
    if hasattr(value, "tolist"):
        value = value.tolist()
    return plain(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def plain(text: str) -> str:
    """Write out what a terminal would take for a command to it, such as the escape character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
