"""Guess what a column is as a feature: its kind and settings, or why it is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.guess.profile_columns import MOST, Column
from towers.features.number_form import NumberForm

FREE_WORDS = 5
"""Texts with more words than this on average are free text, unless few different ones recur."""
ALMOST_ALWAYS = 0.98
"""A column is left out if more of its values are missing, or if more of them are the same."""
UNIQUE = 0.9
"""A text is as good as an id where there are more different values than this for each row."""
FEW = 30
"""So few different whole numbers may be codes rather than amounts."""
FEW_ROWS = 20
"""With fewer rows, nothing is said to be unique."""
MANY_TOKENS = 1000
BUCKETS = 10
LIKELY = 0.7
AMOUNTS = re.compile(r"age|year|price|cost|amount|count|qty|quantity|num|height|weight|length|size")

SUFFIXED = re.compile(r"\s*[-+]?[0-9][0-9.,]*\s*([^\W\d]{1,12}|%|\"|'|€|£|\$|¥)\.?\s*")
PREFIXED = re.compile(r"\s*([$€£¥]|[A-Z]{3})\s*[-+]?[0-9][0-9.,]*\s*")
FEET = re.compile(r"\s*[0-9]+\s*(?:'|ft|feet)\s*(?:[0-9.]+\s*(?:\"|''|in|inches)?)?\s*")
ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*")
YEAR_LAST = re.compile(r".*\D[0-9]{4}")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a column is taken for."""

    kind: str | None
    """The kind of a feature; None where it is left out."""
    why: str
    sure: float
    settings: dict[str, Any] = field(default_factory=dict)
    """Those of the feature; where it is left out, of a feature of the context that it may be."""
    hint: str = ""
    """A comment on what else it may be."""


def guess_kind(column: Column) -> Guess:
    """Guess the kind of a column of users or items, one row each."""
    for rule in (_useless, _typed, _numeric, _date, _with_unit, _list, _text):
        found = rule(column)
        if found is not None:
            return found
    return Guess(
        kind="categorical",
        why=f"{column.n_distinct:,} different values",
        sure=0.9 if column.distinct_share < UNIQUE / 2 else 0.6,
        settings={"min_count": 2} if column.n_distinct > MANY_TOKENS else {},
    )


def _useless(column: Column) -> Guess | None:
    """What says nothing."""
    if column.missing_share > ALMOST_ALWAYS:
        return Guess(kind=None, why=f"missing in {column.missing_share:.1%} of the rows", sure=1.0)
    top = column.keys.value_counts(normalize=True)
    top = top[top.index >= 0]
    if column.n_distinct == 1 or (len(top) and top.iloc[0] > 0.995):  # noqa: PLR2004
        return Guess(kind=None, why="(nearly) the same value in every row", sure=1.0)
    if column.are_urls:
        return Guess(kind=None, why="addresses of pages or pictures", sure=1.0)
    return None


def _typed(column: Column) -> Guess | None:
    """Vectors, lists and booleans by their type."""
    if column.vector_length:
        return Guess(
            kind="vector",
            why=f"lists of {column.vector_length} numbers",
            sure=0.95,
            settings={"length": column.vector_length},
        )
    if column.has_lists:
        return Guess(kind="multi_valued", why="lists", sure=0.95)
    if {text.lower() for text in column.texts} <= {"true", "false"}:
        return Guess(kind="categorical", why="true or false", sure=1.0)
    return None


def _numeric(column: Column) -> Guess | None:
    """Numbers: amounts, codes, or ids."""
    if column.numbers is None:
        return None
    is_unique = column.distinct_share > UNIQUE and column.n_given > FEW_ROWS
    low, high = float(column.numbers.min()), float(column.numbers.max())
    if column.are_integers and is_unique and not AMOUNTS.search(column.name.lower()):
        return Guess(
            kind=None, why="a whole number of its own in nearly every row: an id", sure=0.8
        )
    spread = f"numbers from {low:,.6g} to {high:,.6g}"
    if column.unit is not None:
        return Guess(
            kind="numeric", why=f"times, in {column.unit}", sure=0.7, settings={"buckets": BUCKETS}
        )
    if column.are_integers and column.n_distinct < FEW:
        return Guess(
            kind="categorical",
            why=f"{column.n_distinct} different whole numbers",
            sure=0.7,
            hint='codes? if they are amounts: kind = "numeric"',
        )
    is_amount = not column.are_integers or AMOUNTS.search(column.name.lower())
    sure = 0.9 if is_amount else LIKELY
    return Guess(
        kind="numeric",
        why=spread,
        sure=sure,
        settings={"buckets": BUCKETS},
        hint="" if sure > LIKELY else 'codes? then kind = "categorical"',
    )


def _date(column: Column) -> Guess | None:
    """Dates, as numbers of years."""
    if column.dates is None:
        return None
    form = date_form(column.texts)
    if form is None:
        why = "dates in a form that no pattern of a number is offered for"
        return Guess(kind=None, why=why, sure=0.9)
    return _by_pattern(form, why="dates, as years")


def _with_unit(column: Column) -> Guess | None:
    """Numbers with a unit."""
    form = unit_form(column.texts)
    return None if form is None else _by_pattern(form, why="numbers with a unit")


def _by_pattern(form: NumberForm, *, why: str) -> Guess:
    """A number that a pattern reads."""
    settings: dict[str, Any] = {"pattern": form.pattern}
    if form.factors:
        settings["factors"] = list(form.factors)
    return Guess(kind="numeric", why=why, sure=0.85, settings=settings | {"buckets": BUCKETS})


def _list(column: Column) -> Guess | None:
    """Lists that are written as text."""
    separator = column.list_separator
    if separator is None:
        return None
    return Guess(
        kind="multi_valued",
        why=f"lists with {separator!r} between values",
        sure=0.9 if separator in "|;" else 0.6,
        settings={} if separator == "|" else {"separator": separator},
    )


def _text(column: Column) -> Guess | None:
    """Free text, and texts that are as good as ids."""
    is_unique = column.distinct_share > UNIQUE and column.n_given > FEW_ROWS
    if column.mean_words > FREE_WORDS and column.distinct_share > 0.3:  # noqa: PLR2004
        return Guess(
            kind=None,
            why="free text",
            sure=0.95,
            hint='its embedding by a language model can be a feature of kind "vector"',
        )
    if is_unique:
        return Guess(kind=None, why="a text of its own in nearly every row", sure=0.9)
    return None


def unit_form(texts: Sequence[str]) -> NumberForm | None:
    """The form of numbers with a unit, if nearly all texts have one."""
    if not texts:
        return None
    rules: tuple[tuple[re.Pattern[str], Callable[[set[str]], NumberForm | None]], ...] = (
        (FEET, lambda units: NumberForm(pattern=FEET_FORM, factors=(12.0, 1.0))),
        (SUFFIXED, _suffix_form),
        (PREFIXED, _prefix_form),
    )
    for rule, form_of in rules:
        found = [match for text in texts if (match := rule.fullmatch(text))]
        if len(found) < MOST * len(texts):
            continue
        units = {match[1] for match in found if match.groups()}
        form = _with_comma(form_of(units), texts)
        if form is not None and _reads(form, texts):
            return form
    return None


NUMBER = r"([-+]?[0-9][0-9,]*\.?[0-9]*)"
COMMA = re.compile(r"[^.,]*[0-9],([0-9]{1,2})(?:[^0-9.,].*)?")
"""A number with a comma for its fraction."""
FEET_FORM = r"""([0-9]+) *(?:'|ft|feet) *(?:([0-9.]+) *(?:"|''|in|inches)?)?"""


def _with_comma(form: NumberForm | None, texts: Sequence[str]) -> NumberForm | None:
    """The form of numbers that may have a comma for their fraction, of as many digits in all."""
    found = [COMMA.fullmatch(text) for text in texts]
    digits = {len(match[1]) for match in found if match is not None}
    if form is None or not all(found):
        return form
    if len(digits) != 1:
        return None
    (n,) = digits
    pattern = form.pattern.replace(NUMBER, rf"([0-9]+),([0-9]{{{n}}})")
    return NumberForm(pattern=pattern, factors=(1.0, 10.0**-n))


def _suffix_form(units: set[str]) -> NumberForm | None:
    """Numbers before their unit; of one unit, since others count something else."""
    if len({unit.lower() for unit in units}) != 1:
        return None
    alternatives = "|".join(re.escape(unit) for unit in sorted(units))
    return NumberForm(pattern=rf"{NUMBER} *(?:{alternatives})\.?")


def _prefix_form(units: set[str]) -> NumberForm | None:
    """Numbers behind their unit."""
    if len(units) != 1:
        return None
    return NumberForm(pattern=rf"{re.escape(next(iter(units)))} *{NUMBER}")


def date_form(texts: Sequence[str]) -> NumberForm | None:
    """The form that makes years of dates, if they are written with the year first or last."""
    if texts and all(map(ISO_DATE.fullmatch, texts)):
        return NumberForm(
            pattern="([0-9]{4})-([0-9]{2})-([0-9]{2}).*", factors=(1.0, 0.0833, 0.00274)
        )
    if texts and all(map(YEAR_LAST.fullmatch, texts)):
        return NumberForm(pattern=r".*[^0-9]([0-9]{4})")
    return None


def _reads(form: NumberForm, texts: Sequence[str]) -> bool:
    """Whether a form reads nearly all texts."""
    read = [form.read(text) for text in texts]
    return bool(np.mean([value is not None for value in read]) >= MOST)
