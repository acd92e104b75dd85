"""How many examples Hypothesis tries: fewer in the inner loop, which is to be short."""

from __future__ import annotations

from hypothesis import settings

INNER_LOOP = "inner-loop"
"""The profile of a run without the tests marked slow."""
INNER_LOOP_SHARE = 6
WHOLE = 60
"""Examples of a test that does not say how many; each run tries others."""


def examples(number: int) -> int:
    """How many of `number` examples to try in this run; in the whole suite, all."""
    is_short = settings.get_current_profile_name() == INNER_LOOP
    return max(5, number // INNER_LOOP_SHARE) if is_short else number
