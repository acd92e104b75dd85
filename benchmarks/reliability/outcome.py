"""What came of a campaign."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 5
"""Losses that are described."""


@dataclass
class Outcome:
    """How often something was tried, and what did not come out as it must."""

    name: str
    what: str
    """What one try is."""
    tried: int = 0
    losses: list[str] = field(default_factory=list)

    def check(self, holds: bool, loss: str) -> None:
        """Note a try, and what was lost if it does not hold."""
        self.tried += 1
        if not holds:
            self.losses.append(loss)

    def line(self) -> str:
        """Tried, survived and lost, in one line, and what the first losses were."""
        survived = self.tried - len(self.losses)
        text = f"{self.name:14} {self.tried:7,} tried {survived:7,} survived "
        text += f"{len(self.losses):5,} lost   {self.what}"
        return "\n".join([text, *(f"    lost: {loss}" for loss in self.losses[:SHOWN])])
