"""NumberForm: how numbers are written that have a unit, such as 137lbs, 5' 8" or $12.50.

One form is shared by training, serving and whatever is put in later: see `docs/values.md`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import Any

from towers.errors import ConfigError
from towers.features.values import number_of, text_of


@dataclass(frozen=True)
class NumberForm:
    """A pattern whose groups are numbers, and what each of them counts."""

    pattern: str
    """A regular expression that the whole text matches, but for spaces around it."""
    factors: tuple[float, ...] = ()
    """By group; the number is the sum of the groups, each times its factor. Default: 1 each."""

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """The pattern.

        Raises:
            ConfigError: it is no regular expression, has no group, or has fewer than factors.
        """
        try:
            found = re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(
                f"pattern: expected a regular expression, received {self.pattern!r}: {error}"
            ) from None
        if not found.groups or len(self.factors) not in {0, found.groups}:
            raise ConfigError(
                "pattern: expected at least one group in parentheses, and as many factors or none, "
                f"received {self.pattern!r} with {found.groups} group(s) and "
                f"{len(self.factors)} factors; parentheses that are no group begin with (?:"
            )
        return found

    def read(self, value: Any) -> float | None:
        """Read a number: one as it stands, or a text in this form; None for anything else.

        A date is read as the text that its token is.
        A comma within a group stands between thousands; a group without a match counts nothing.
        """
        number = number_of(value)
        if number is not None:
            return number
        text = text_of(value)
        match = None if text is None else self.compiled.fullmatch(text.strip())
        if match is None:
            return None
        total, n_found = 0.0, 0
        for group, factor in zip(match.groups(), chain(self.factors, repeat(1.0)), strict=False):
            if not group:
                continue
            part = number_of(group.replace(",", ""))
            if part is None or math.isnan(part):
                return None
            total += part * factor
            n_found += 1
        return total if n_found else None
