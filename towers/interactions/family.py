"""Family: its members by name."""

from __future__ import annotations

from towers.features.fields import Fields
from towers.features.schema import Schema
from towers.features.vocabulary import Vocabulary
from towers.interactions.ffm import FFM
from towers.interactions.fm3 import FM3
from towers.interactions.fwfm import FwFM
from towers.interactions.interaction import FM, Interaction
from towers.interactions.member import Member


def make_interaction(
    member: Member,
    schema: Schema,
    vocabulary: Vocabulary,
    *,
    k: int,
    field_rank: int | None = None,
    seed: int = 0,
) -> Interaction:
    """A member as it starts: what it has beyond the plain machine adds nothing yet.

    Args:
        member: its name.
        schema: the features.
        vocabulary: their rows.
        k: the length of a feature's vectors.
        field_rank: of `fwfm`; see the class.
        seed: likewise.
    """
    if member == "fm":
        return FM()
    if member == "fm3":
        return FM3(k)
    fields = Fields.build(schema, vocabulary)
    return FFM(fields) if member == "ffm" else FwFM(fields, rank=field_rank, seed=seed)
