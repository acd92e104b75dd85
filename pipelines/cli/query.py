"""The commands that query a version: `query` and `explain`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from towers.errors import QueryError

if TYPE_CHECKING:
    from serving.retrieval.explanation.explain import Explanation, Given
    from serving.retrieval.explanation.feature_names import FeatureName
    from serving.retrieval.retriever import Retriever
    from towers.directions import Direction
    from towers.features.schema import Side

Models = Annotated[
    Path, typer.Option("--models", "-m", help="The models directory that `run` wrote.")
]
Version = Annotated[int | None, typer.Option(help="A version; default: the current.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
MaxPer = Annotated[
    str | None,
    typer.Option(help="How many may have the same value of a column: brand=2,category=5."),
]
DiversityWeight = Annotated[
    float | None,
    typer.Option(help="How much it counts that they are unlike each other, from 0 to 1."),
]


def query(
    direction: Annotated[str, typer.Argument(help="u2i, i2i, u2u or i2u.", show_default=False)],
    models: Models = Path("models"),
    id: Annotated[str | None, typer.Option(help="A user or item of the tables.")] = None,
    features: Annotated[
        str | None,
        typer.Option(help='Raw features of anyone else, as JSON: \'{"age": 30, "history": [1]}\'.'),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many to retrieve.")] = 10,
    exclude: Annotated[str, typer.Option(help="Ids to leave out, separated by commas.")] = "",
    exclude_seen: Annotated[
        bool,
        typer.Option("--exclude-seen", help="Leave out what the user has seen, positive or not."),
    ] = False,
    max_per: MaxPer = None,
    diversity: DiversityWeight = None,
    rank: Annotated[
        bool,
        typer.Option("--rank", help="u2i: order more candidates by the ranker, and show the best."),
    ] = False,
    show: Annotated[
        str, typer.Option(help="Columns of the target's table to show, separated by commas.")
    ] = "",
    as_json: AsJson = False,
    version: Version = None,
) -> None:
    """Retrieve items for a user, items like an item, users like a user, or users for an item."""
    from pipelines.cli.show_hits import hits_as_json, show_hits
    from serving.retrieval.parts import find_direction
    from serving.retrieval.retriever import Retriever

    chosen = find_direction(direction)
    retriever = Retriever.open(models, version=version)
    sources, targets = (retriever.catalogue(side) for side in (chosen.source, chosen.target))
    if rank and direction != "u2i":
        raise QueryError(f"--rank: expected u2i, items for a user, received {direction}")
    find = retriever.recommend if rank else partial(retriever.retrieve, direction)
    hits = find(
        id=None if id is None else sources.parse_id(id),
        features=None if features is None else parse_object(features, option="--features"),
        k=k,
        exclude=[targets.parse_id(text) for text in _split(exclude)],
        exclude_seen=exclude_seen,
        max_per=None if max_per is None else parse_caps(max_per),
        diversity=diversity or 0.0,
    )
    columns = _split(show)
    if as_json:
        sys.stdout.write(hits_as_json(hits, show=columns) + "\n")
        return
    show_hits(
        Console(), hits, title=f"{direction}, version {retriever.bundle.version}", show=columns
    )


def explain(
    models: Models = Path("models"),
    user: Annotated[
        list[str] | None, typer.Option(help="A user's id; two of them: how like each other.")
    ] = None,
    item: Annotated[
        list[str] | None, typer.Option(help="An item's id; two of them: how like each other.")
    ] = None,
    user_features: Annotated[
        list[str] | None, typer.Option(help="Raw features of any user, as JSON, in place of an id.")
    ] = None,
    item_features: Annotated[
        list[str] | None, typer.Option(help="Raw features of any item, as JSON, in place of an id.")
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(help="u2i, i2i, u2u or i2u; default: u2i for a user and an item."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many parts to show.")] = 20,
    show: Annotated[
        str, typer.Option(help="Columns of the items' table to show, separated by commas.")
    ] = "",
    rank: Annotated[
        bool,
        typer.Option("--rank", help="Instead: what the ranker's score of an item is the sum of."),
    ] = False,
    fields: Annotated[
        bool,
        typer.Option("--fields", help="Instead: which fields carry the scores of many users."),
    ] = False,
    users: Annotated[int, typer.Option(help="With --fields: how many users to draw.")] = 1000,
    k: Annotated[int, typer.Option("-k", help="With --fields: how many items each is shown.")] = 10,
    as_json: AsJson = False,
    version: Version = None,
) -> None:
    """Say why a user and an item, two items or two users have their score: the parts of its sum.

    Of two items or two users the first is the source; ids come before features.
    """
    from pipelines.cli.show_explanations import show_explanation, show_fields
    from serving.retrieval.parts import find_direction
    from serving.retrieval.retriever import Retriever

    retriever = Retriever.open(models, version=version)
    if fields:
        importance = retriever.explain_fields(n_users=users, k=k)
        if as_json:
            _write_json(importance.to_dict())
        else:
            show_fields(Console(), importance)
        return
    ends: dict[Side, list[Given]] = {
        "user": _ends(retriever.catalogue("user").parse_id, user, user_features, "--user-features"),
        "item": _ends(retriever.catalogue("item").parse_id, item, item_features, "--item-features"),
    }
    chosen = find_direction(direction or _direction_of(ends))
    source, target = _two(ends, chosen)
    if rank:
        _explain_rank(retriever, source, target, limit=limit, as_json=as_json)
        return
    found = retriever.explain(chosen.name, source=source, target=target)
    if as_json:
        _write_json(found.to_dict(limit=limit))
    else:
        titles = titles_of(retriever, found, columns=_split(show))
        show_explanation(Console(), found, limit=limit, titles=titles)


def _explain_rank(
    retriever: Retriever, source: Given, target: Given, *, limit: int, as_json: bool
) -> None:
    """Print the parts of a ranker's score.

    Raises:
        QueryError: the item is not given by its id.
    """
    from pipelines.cli.show_explanations import show_rank_explanation

    if "id" not in target:
        raise QueryError("explain --rank: expected an item by its id, received features")
    found = retriever.explain_rank(source=source, item=target["id"])
    if as_json:
        _write_json(found.to_dict(limit=limit))
    else:
        show_rank_explanation(Console(), found, limit=limit)


def _split(text: str) -> list[str]:
    """Cut a list at its commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_caps(text: str) -> dict[str, int]:
    """Read the caps of `--max-per`, by column.

    Raises:
        QueryError: one is no column with a number.
    """
    pairs = [part.rpartition("=") for part in _split(text)]
    if not pairs or not all(column and cap.isdecimal() for column, _, cap in pairs):
        raise QueryError(
            f"--max-per: expected columns with a number each, as brand=2,category=5, received "
            f"{text!r}"
        )
    return {column: int(cap) for column, _, cap in pairs}


def parse_object(text: str, *, option: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        QueryError: the text is none.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise QueryError(f"{option}: expected a JSON object, received {text!r}: {error}") from None
    if not isinstance(found, dict):
        raise QueryError(f"{option}: expected a JSON object, received {text!r}")
    return found


def _ends(
    parse_id: Callable[[str], int | str],
    ids: Sequence[str] | None,
    features: Sequence[str] | None,
    option: str,
) -> list[Given]:
    """The ids and features that were given for one side."""
    return [
        *({"id": parse_id(id)} for id in ids or ()),
        *({"features": parse_object(text, option=option)} for text in features or ()),
    ]


def _direction_of(ends: Mapping[Side, Sequence[Given]]) -> str:
    """The direction that the given users and items imply."""
    alike = [side for side, given in ends.items() if len(given) > 1]
    return f"{alike[0][0]}2{alike[0][0]}" if alike else "u2i"


def _two(ends: Mapping[Side, Sequence[Given]], direction: Direction) -> tuple[Given, Given]:
    """The source and the target of a direction.

    Raises:
        QueryError: what is given is not one of each.
    """
    source, target = direction.source, direction.target
    expected = Counter([source, target])
    if any(len(given) != expected[side] for side, given in ends.items()):
        wanted = f"two {source}s" if direction.is_similarity else "one user and one item"
        received = " and ".join(f"{len(given)} {side}(s)" for side, given in ends.items())
        raise QueryError(
            f"explain {direction.name}: expected {wanted}, each by its id or by features, received "
            f"{received}"
        )
    return ends[source][0], ends[target][-1]


def titles_of(
    retriever: Retriever, found: Explanation, *, columns: Sequence[str]
) -> dict[FeatureName, str]:
    """Columns of the items that are features, as text.

    Raises:
        QueryError: there is no such column.
    """
    if not columns:
        return {}
    items = retriever.catalogue("item")
    fields = {retriever.parts.schema.id_input("item"), *retriever.parts.history_columns}
    labels = {
        name: name.label
        for name in (*found.source, *found.target)
        if name.label is not None and name.field in fields
    }
    rows = items.rows(list(labels.values()))
    is_here = rows >= 0
    shown = items.show(rows[is_here], columns).drop(columns=items.id_column)
    texts = (" ".join(map(str, values)) for values in shown.itertuples(index=False))
    return dict(zip(compress(labels, is_here), texts, strict=True))


def _write_json(content: Any) -> None:
    """Print JSON."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
