"""Write docs/configuration.md and docs/cli.md from the code. Run: make docs."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from pathlib import Path
from typing import Any

import typer

from pipelines import behaviours, config, rank_config, table_config, tracking
from pipelines.cli.main import app
from towers.features import kinds
from towers.ranking.settings import RankerSettings

SECTIONS: dict[str, type[Any]] = {
    "(top level)": config.RunConfig,
    "[data]": table_config.DataConfig,
    "[data.interactions]": table_config.InteractionsTable,
    "[data.behaviours.NAME]": behaviours.Behaviour,
    "[data.users], [data.items]": table_config.EntityTable,
    "[split]": config.SplitConfig,
    "[model]": config.ModelConfig,
    "[training]": config.TrainingConfig,
    "[training.als]": config.LeastSquaresConfig,
    "[training.negatives]": config.NegativesConfig,
    "[evaluation]": config.EvaluationConfig,
    "[index]": config.IndexConfig,
    "[export]": config.ExportConfig,
    "[tracking]": tracking.TrackingConfig,
    "[rank]": rank_config.RankConfig,
    "[rank.model]": RankerSettings,
    "[[rank.crosses]]": rank_config.RankCross,
    "[[user.features]], [[item.features]]: kind = 'categorical'": kinds.Categorical,
    "[[user.features]], [[item.features]]: kind = 'cross'": kinds.Cross,
    "[[user.features]], [[item.features]]: kind = 'multi_valued'": kinds.MultiValued,
    "[[user.features]], [[item.features]]: kind = 'numeric'": kinds.Numeric,
    "[[user.features]], [[item.features]]: kind = 'vector'": kinds.Vector,
    "[[user.features]]: kind = 'history'": kinds.History,
    "[[item.features]]: kind = 'trend'": kinds.Trend,
}
"""The tables of a TOML file, and the dataclass that each is read into."""


def configuration() -> str:
    """Render every setting with its type, its default and what it does."""
    parts = [
        "# Configuration",
        "One TOML file describes a run. Unknown keys and wrong types are errors that name the key. "
        "Paths are relative to the file. This page is made from the code by `make docs`.",
    ]
    for title, kind in SECTIONS.items():
        parts += [f"## `{title}`", inspect.getdoc(kind) or ""]
        texts = _field_texts(kind)
        rows = ["| key | type | default | |", "|---|---|---|---|"]
        for field in dataclasses.fields(kind):
            kind_name = str(field.type).replace("|", "\\|")
            rows.append(
                f"| `{field.name}` | `{kind_name}` | {_default(field)} | {texts[field.name]} |"
            )
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """Render every command with its arguments and options."""
    root: Any = typer.main.get_command(app)
    parts = [
        "# Commands",
        f"{root.help} This page is made from the code by `make docs`.",
        "Exit codes: 0 done, 1 the system failed (a full disk), 2 bad input, 3 published but not "
        "current, since it is worse than the current version, 130 interrupted.",
        "Long commands say what they do and how long each stage took; on a terminal a line moves, "
        "with what is done and the time left, and elsewhere there is a line every half minute. "
        "`--quiet` prints nothing but errors. `--json` prints a JSON object a line: `time`, "
        "`level`, `message` and `event`, which is `stage begins`, `stage ends` (with `seconds`), "
        "`progress` (with `done`, `total` and `seconds_left`), `message` or, at the end, `result`. "
        "Errors go to standard error. What native libraries such as ScaNN note is kept in "
        "`logs/native.log` within what the command writes; their errors are shown as well.",
    ]
    for name, command in root.commands.items():
        parts += [f"## `fm-recall {name}`", inspect.cleandoc(command.help)]
        rows = ["| | default | |", "|---|---|---|"]
        for parameter in command.params:
            names = ", ".join(f"`{given}`" for given in parameter.opts)
            default = "" if parameter.default in {None, ""} else f"`{parameter.default}`"
            rows.append(f"| {names} | {default} | {parameter.help or ''} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


PAGES = {"configuration.md": configuration, "cli.md": commands}
"""The pages of docs/ that are made from the code."""


def _field_texts(kind: type[Any]) -> dict[str, str]:
    """The text under each field, of the dataclass and of those it extends."""
    texts: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        name = ""
        for node in body.body if isinstance(body, ast.ClassDef) else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
                texts.setdefault(name, "")
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
                texts[name] = " ".join(str(node.value.value).split()).replace("|", "\\|")
    return texts


def _default(field: dataclasses.Field[Any]) -> str:
    """Say a field's default, or that it is required."""
    if field.default_factory is not dataclasses.MISSING:
        return "its table's defaults"
    if field.default is dataclasses.MISSING:
        return "required"
    return f"`{field.default!r}`"


if __name__ == "__main__":
    for page, render in PAGES.items():
        Path(__file__).with_name(page).write_text(render(), encoding="utf-8")
