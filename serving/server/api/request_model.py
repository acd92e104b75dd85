"""The base of all that a request brings as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass

REQUEST = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of every dataclass that is part of a request. Its fields are `strict` where a value of another
type could be taken for one of theirs: `"10"` is no integer, and 1 is no boolean."""


@dataclass(frozen=True, kw_only=True, config=REQUEST)
class RequestModel:
    """Part of a request, with no field that is unknown."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_unknown(cls, raw: Any) -> Any:
        """Name one unknown field: pydantic names all of them, which takes seconds for a million."""
        if isinstance(raw, dict):
            for name in raw:
                if name not in cls.__dataclass_fields__:
                    raise ValueError(f"unknown field {name!r}; remove it or check its spelling")
        return raw
