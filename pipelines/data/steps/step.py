"""Engines: who carries out a step on every chunk, or on every block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

Outcome = dict[str, Any]
"""What a step says about its chunk or block: values that JSON can hold."""


class Step(Protocol):
    """A frozen dataclass that reads files and writes files, and can be done again.

    It holds what it needs by value, and paths that are the same on every machine.
    """

    def __call__(self, number: int) -> Outcome:
        """Carry it out on a chunk or a block."""
        ...


class Engine(Protocol):
    """Carries out steps, in this process or on other machines."""

    def run(self, step: Step, *, count: int) -> Iterator[tuple[int, Outcome]]:
        """Carry out a step on numbers 0 to `count` - 1; give each outcome when it is there."""
        ...


class LocalEngine:
    """Carries out steps one after another, in this process."""

    def run(self, step: Step, *, count: int) -> Iterator[tuple[int, Outcome]]:
        """Carry out a step on numbers 0 to `count` - 1, in order."""
        for number in range(count):
            yield number, step(number)
