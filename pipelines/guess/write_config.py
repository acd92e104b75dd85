"""Write a draft as a commented TOML file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from pipelines.guess.draft import Draft, EntityDraft, FeatureDraft, Role, how_sure
from pipelines.guess.name_hints import input_name
from pipelines.guess.read_tables import Table

HEAD = """\
# Written by `fm-recall init` from {files}.
# What was guessed stands with how sure it is: sure, likely, a guess. Mend what is wrong; then
#     fm-recall check {config}    reads, splits and reports, without training
#     fm-recall run {config}
# Every setting: docs/configuration.md.
name = {name}"""


def compose(draft: Draft, *, config: Path, rejected: Sequence[str] = ()) -> str:
    """Write a configuration; `rejected` are rows at fault, which are then set aside."""
    lines = [
        HEAD.format(
            files=", ".join(table.name for table in draft.tables),
            config=config.name,
            name=_value(config.stem),
        )
    ]
    lines += [f"# left out: {path.name}: {_line(why)}" for path, why in draft.left_out]
    lines += _data(draft, rejected)
    lines += _interactions(draft, config)
    for entity in draft.entities.values():
        lines += _entity(entity, config)
    if draft.test is not None:
        lines += [
            "",
            "[split.test]",
            *_format(draft.test, config),
            *_columns(draft, comments=False),
        ]
    for entity in draft.entities.values():
        lines += _features(entity)
    if (
        "item" not in draft.entities
        and input_name(draft.item.column, taken=()) != draft.item.column
    ):
        lines += _feature("item.features", _item_id(draft.item.column), comment="")
    lines += _others(draft)
    return "\n".join(lines) + "\n"


def _data(draft: Draft, rejected: Sequence[str]) -> Iterator[str]:
    """What happens to rows at fault."""
    if rejected:
        yield ""
        yield "[data]"
        yield from (f"# {_line(line)}" for line in rejected)
        yield _pair("on_bad_rows", "quarantine", 'these rows are set aside; "fail" would stop')


def _interactions(draft: Draft, config: Path) -> Iterator[str]:
    """The table of interactions, and its behaviours."""
    yield ""
    yield "[data.interactions]"
    yield from (f"# {note}" for note in draft.interactions.notes)
    yield from _format(draft.interactions, config)
    yield from _columns(draft)
    event = draft.event
    for name, settings in (event.settings["behaviours"] if event else {}).items():
        yield ""
        yield f"[data.behaviours.{_key(name)}]"
        yield from (_pair(key, value) for key, value in settings.items())


def _columns(draft: Draft, *, comments: bool = True) -> Iterator[str]:
    """Which column is which, in the interactions."""
    roles: tuple[tuple[str, Role | None], ...] = (
        ("user", draft.user),
        ("item", draft.item),
        ("timestamp", draft.time),
        ("rating", draft.rating),
        ("event", draft.event),
    )
    for key, role in roles:
        if role is None:
            continue
        comment = f"{how_sure(role.sure)}: {role.why}" if comments else ""
        yield _pair(key, role.column, comment)
        yield from (f"# {text}" for text in role.comments if comments)
        settings = {k: v for k, v in role.settings.items() if k != "behaviours"}
        yield from (_pair(name, value) for name, value in settings.items())
    if draft.time is None and comments:
        yield "# no times were found: the split is random, and nothing is known of what is new"


def _entity(entity: EntityDraft, config: Path) -> Iterator[str]:
    """The table of users, or of items."""
    yield ""
    yield f"[data.{entity.side}s]"
    if entity.table is None:
        yield _pair(
            "source", "interactions", "each row repeats what is known of its " + entity.side
        )
        yield _pair("id", entity.id)
        yield from _available(entity)
        yield "# of several values the latest counts; without times, the most frequent"
        if entity.keep:
            yield _pair("keep", list(entity.keep), "to be shown; no feature reads them")
        return
    yield from (f"# {note}" for note in entity.table.notes)
    yield from _format(entity.table, config)
    yield _pair("id", entity.id, f"{how_sure(entity.sure)}: {entity.why}")
    yield from _available(entity)


def _available(entity: EntityDraft) -> Iterator[str]:
    """From when on items could be chosen."""
    role = entity.available
    if role is None:
        return
    yield "# what was chosen before an item came is not compared with it"
    yield _pair("available_from", role.column, f"{how_sure(role.sure)}: {role.why}")
    yield from (f"# {text}" for text in role.comments)
    yield from (_pair(name, value) for name, value in role.settings.items())


def _item_id(column: str) -> dict[str, Any]:
    """The ids of items as a feature; under another name, where theirs cannot be an input's."""
    name = input_name(column, taken=())
    own = {"kind": "categorical", "column": column}
    return own if name == column else own | {"name": name}


def _features(entity: EntityDraft) -> Iterator[str]:
    """The features of a side, and the columns that are none."""
    chosen = [one for one in entity.features if one.guess.kind is not None]
    left = [one for one in entity.features if one.guess.kind is None]
    own: dict[str, Any] = {"kind": "history"}
    if entity.side == "item":
        own = _item_id(entity.id)
    taken = [own.get("name") or own.get("column") or own["kind"]]
    if chosen or "name" in own:
        yield from _feature(f"{entity.side}.features", own, comment="")
    for one in chosen:
        settings: dict[str, Any] = {"kind": one.guess.kind, "column": one.column}
        name = input_name(one.column, taken=taken)
        settings |= {} if name == one.column else {"name": name}
        taken.append(name)
        guess = one.guess
        comment = f"{how_sure(guess.sure)}: {guess.why}"
        hints = [guess.hint] if guess.hint else []
        yield from _feature(
            f"{entity.side}.features", settings | dict(guess.settings), comment=comment, hints=hints
        )
    yield from _left_out(left, f"columns of {entity.side}s that are no features")


def _feature(
    table: str, settings: Mapping[str, Any], *, comment: str, hints: Sequence[str] = ()
) -> Iterator[str]:
    """A feature."""
    yield ""
    yield f"[[{table}]]"
    for key, value in settings.items():
        yield _pair(key, value, comment if key == "kind" else "")
    yield from (f"# {hint}" for hint in hints)


def _others(draft: Draft) -> Iterator[str]:
    """Columns of the interactions that say something of neither side."""
    yield from _left_out(draft.others, "columns of the interactions that are not used")
    moments = [one for one in draft.others if one.guess.settings]
    if moments:
        yield "# What is known when a user asks may be a feature of the moment (docs/events.md);"
        yield "# what is known only after the choice may not. To use one, take its # away:"
    for one in moments:
        name = input_name(one.column, taken=())
        own = {"column": one.column} | ({} if name == one.column else {"name": name})
        lines = _feature("context.features", one.guess.settings | own, comment="")
        yield from (f"# {line}".rstrip() for line in lines)


def _left_out(columns: Sequence[FeatureDraft], title: str) -> Iterator[str]:
    """Columns with the reason why they are no features."""
    if columns:
        yield ""
        yield f"# {title}:"
    for one in columns:
        hint = f" ({one.guess.hint})" if one.guess.hint else ""
        yield f"#   {_line(one.column)}: {_line(one.guess.why)}{hint}"


def _format(table: Table, config: Path) -> Iterator[str]:
    """Where a table is, and how it is written."""
    yield _pair("path", os.path.relpath(table.path.resolve(), config.resolve().parent))
    for key, value in table.format.items():
        yield _pair(key, list(value) if isinstance(value, tuple) else value)


def _pair(key: str, value: Any, comment: str = "") -> str:
    """A key and its value, with a comment behind them."""
    text = f"{key} = {_value(value)}"
    return f"{text}  # {_line(comment)}" if comment else text


def _line(text: str) -> str:
    """A text on one line, without what TOML does not take in a comment."""
    return "".join(one if one.isprintable() else " " for one in " ".join(text.split()))


def _value(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    text = tomli_w.dumps({"key": value}).removeprefix("key = ").rstrip("\n")
    return text.replace("\t", "\\t")


def _key(name: str) -> str:
    """A name as a key of TOML."""
    is_bare = all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in name)
    return name if name and is_bare else _value(name)
