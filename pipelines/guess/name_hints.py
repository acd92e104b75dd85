"""Hints: what the names of columns and files usually mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from serving.version.saved_models.names import check_input_names
from towers.errors import ConfigError


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


USER = _set(
    "user customer client member visitor household reviewer account session device profile "
    "buyer person reader listener viewer shopper subscriber player student patient "
    "uid userid"
)
WEAK = _set("session device cookie visitor household account profile ad offer place list content")
"""What may stand for users or items where nothing that is more surely one is there."""
ITEM = _set(
    "item product article movie film book song track artist album business sku asin "
    "isbn game app venue listing recipe hotel restaurant course job video content "
    "news ad doc document offer place paper material goods clothes iid "
    "pid"
)
TIME = _set("time timestamp date datetime ts day at when created unixreviewtime unix reviewtime")
AVAILABLE = _set(
    "available release released publish published publication added created launch launched "
    "listed premiere issued uploaded posted"
)
"""What a column of dates is called that says when an item came."""
RATING = _set("rating ratings score stars star overall grade")
LABEL = _set(
    "click clicked clicks label liked like likes purchased purchase bought converted conversion "
    "watched target response reward feedback read chosen selected applied"
)
"""What a column of noughts and ones is called that says whether an item was chosen."""
COUNTS = _set("plays playcount listens count qty quantity weight hours minutes duration times")
"""What a column is called that says how often, or how long."""
EVENT = _set("event action behavior behaviour activity interaction type eventtype")
USER_FEATURES = _set(
    "age gender sex occupation height weight body bust income country city zip location"
)
ITEM_FEATURES = _set(
    "category genre genres brand price title author publisher description color colour"
)
ID_WORDS = _set("id ids key no nr num number code idx index")
FILES = {
    "user": _set("users user customers members people households profiles"),
    "item": _set(
        "items item products movies films books articles songs tracks artists games apps "
        "catalog catalogue businesses recipes metadata meta"
    ),
    "interaction": _set(
        "interactions ratings events clicks purchases transactions reviews logs log "
        "orders views plays listens checkins train"
    ),
}

PROPERTIES = _set("tag feature attribute genre category word keyword topic")
PROPERTIES |= {f"{word}s" for word in PROPERTIES}
"""What lists of users or items hold that are no interactions."""
TARGETS = (
    _set("purchase buy transaction order rent rental booking book conversion sale pay"),
    _set("cart addtocart fav favorite favourite like save wishlist bookmark apply"),
)
"""What events are usually targets, the strongest first."""
NEGATIVES = _set("dislike hide skip report unlike notinterested refund return")
LOOKS = _set("view click pv impression open detail detailview visit")


def words(name: str) -> list[str]:
    """The words of a name, in lower case: of ReviewTime, review_time and "review time" alike."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def _found(name: str, hints: frozenset[str]) -> set[str]:
    """The words of a name that are hints, maybe with id behind them: itemid."""
    found = {*words(name), "".join(words(name))}
    return {one for one in found if one in hints or one.removesuffix("id") in hints}


def fits(name: str, hints: frozenset[str]) -> bool:
    """Whether a name has one of these words, or is one of them when written as one word."""
    return bool(_found(name, hints))


def names_id(name: str, hints: frozenset[str]) -> float:
    """How surely a name is that of such ids: user_id before user_name."""
    found = _found(name, hints)
    if not found:
        return 0.0
    rest = {*words(name)} - found
    if found <= WEAK | {f"{word}id" for word in WEAK}:
        return 0.8
    if "".join(words(name)) in found or rest <= ID_WORDS:
        return 1.0
    return 0.6 if rest & ID_WORDS else 0.3


def file_fits(path: Path, kind: str) -> bool:
    """Whether a file is called as tables of this kind are."""
    return bool(FILES[kind] & {*words(path.name)})


def input_name(column: str, *, taken: Sequence[str]) -> str:
    """A name for an input of a SavedModel, which no other has: the column's, where that can be."""
    if _may_be_input(column, taken):
        return column
    name = "_".join(words(column))
    if not _may_be_input(name, ()):
        name = f"f_{name}"
    while not _may_be_input(name, taken):
        name += "_"
    return name


def _may_be_input(name: str, taken: Sequence[str]) -> bool:
    """Whether a SavedModel's input may have a name, beside those that are taken."""
    try:
        check_input_names([*taken, name])
    except ConfigError:
        return False
    return True
