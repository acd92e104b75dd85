"""RankerSettings: which model ranks, and its sizes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from towers.typed import STRICT

Kind = Literal["fm", "fwfm", "ffm", "afm", "deepfm"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RankerSettings:
    """The model of the second stage, over fields of which each is pooled to one vector."""

    kind: Kind = "fwfm"
    """`fm`: all pairs of fields alike; `fwfm`: a weight for each pair; `ffm`: a vector of each
    feature for each other field; `afm`: pairs by attention; `deepfm`: fm and a network over the
    same vectors. docs/ranking.md says which is worth it when."""
    within_fields: bool = False
    """Whether the features of one field meet too, as in the plain machine; what they add counts for
    their field."""
    embedding_dim: PositiveInt = 16
    """k, the length of a feature's vector; of `ffm`, of each of its vectors."""
    init_scale: Annotated[float, Field(gt=0.0)] = 0.1
    """Standard deviation of the initial vectors; with a tenth of it, pairs may never start."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """The share that is dropped in training: of the fields' vectors; of `afm`, of the products of
    its pairs; of `deepfm`, behind each layer of the network. Default: 0.5 of `deepfm`, else 0.2."""
    l2: NonNegativeFloat | None = None
    """Weight in the loss of the squared length of the weight and the vector of each feature that a
    batch has, however often: rare features are held back most. Default: 1e-4 of `deepfm`, else
    1e-5."""
    attention_dim: PositiveInt = 16
    """`afm`: the width of its attention network."""
    hidden: tuple[PositiveInt, ...] = (256, 128)
    """`deepfm`: the widths of the layers of its network."""

    @property
    def dropped(self) -> float:
        """The share that is dropped, as given or by the kind."""
        usual = 0.5 if self.kind == "deepfm" else 0.2
        return usual if self.dropout is None else self.dropout

    @property
    def penalty(self) -> float:
        """The weight of squared lengths, as given or by the kind."""
        usual = 1e-4 if self.kind == "deepfm" else 1e-5
        return usual if self.l2 is None else self.l2
