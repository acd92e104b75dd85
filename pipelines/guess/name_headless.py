"""Name the columns of files without a header line by what they were taken for."""

from __future__ import annotations

from dataclasses import replace

from pipelines.guess.draft import Draft, EntityDraft, Role
from pipelines.guess.read_tables import Table
from towers.features.schema import Side


def name_headless(draft: Draft) -> Draft:
    """Name ids, times and ratings of files without a header line; other columns keep a number."""
    entities: dict[Side, EntityDraft] = {}
    for side, entity in draft.entities.items():
        if entity.table is None or entity.table.has_header:
            entities[side] = entity
            continue
        table = entity.table.rename({entity.id: f"{side}_id"})
        entities[side] = replace(entity, table=table, id=f"{side}_id")
    if draft.interactions.has_header:
        return replace(draft, entities=entities)
    roles = {
        "user_id": draft.user,
        "item_id": draft.item,
        "timestamp": draft.time,
        "rating": draft.rating,
        "event": draft.event,
    }
    names = {role.column: name for name, role in roles.items() if role is not None}
    entities = {
        side: entity if entity.table is not None else replace(entity, id=f"{side}_id")
        for side, entity in entities.items()
    }
    return replace(
        draft,
        interactions=draft.interactions.rename(names),
        test=_renamed(draft.test, names),
        user=_role(draft.user, names),
        item=_role(draft.item, names),
        time=draft.time and _role(draft.time, names),
        rating=draft.rating and _role(draft.rating, names),
        event=draft.event and _role(draft.event, names),
        entities=entities,
    )


def _renamed(table: Table | None, names: dict[str, str]) -> Table | None:
    return None if table is None else table.rename(names)


def _role(role: Role, names: dict[str, str]) -> Role:
    return replace(role, column=names[role.column])
