"""Tables of users, items and interactions, as a vocabulary is fitted on them."""

from __future__ import annotations

from typing import Any

import pandas as pd


def counted(
    *, users: pd.DataFrame, items: pd.DataFrame, interactions: pd.DataFrame
) -> dict[str, Any]:
    """The users and items, and how often each is among the interactions."""
    counts = {
        f"{side}_counts": table.iloc[:, 0]
        .map(interactions[f"{side}_id"].value_counts())
        .fillna(0)
        .to_numpy("int64")
        for side, table in (("user", users), ("item", items))
    }
    return {"users": users, "items": items, **counts}
