"""Member: the names of the members; without TensorFlow, so that settings are read quickly."""

from __future__ import annotations

from typing import Literal

Member = Literal["fm", "fwfm", "ffm", "fm3"]
