"""The names in a SavedModel: its signatures, their inputs, and what a feature may be called."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from typing import Literal

from towers.errors import ConfigError

K = "k"
"""The input that says how many results are wanted."""

EXCLUDE = "exclude"
"""The input that lists the ids that are not."""

DENSE = "dense"
"""The output of that signature that has the numbers of vectors, as the feature table takes them."""

FEATURES = "features"
"""The signature of a tower that answers what its vectors are sums of."""

RANK = "rank"
"""The SavedModel that ranks what was found, in versions that have one."""

QUERY, ITEM = "query", "item"
"""Its inputs that say which query and which item each pair has."""

RECALL = "recall"
"""Its input of the scores by which items were found."""

SCORES = "scores"
"""The output of scores."""

EXPLAIN = "explain"
"""Its signature that answers the parts of scores."""


def rank_input(side: str, name: str) -> str:
    """What the input of a feature of a side is called there, as both may have one of that name."""
    return f"{side}_{name}"


def past_function(how: Literal["put", "add"], history: str) -> str:
    """The function of a user tower that takes what items bring to a history.

    The first history is named by "".
    """
    return f"{how}_past_items_{history}" if history else f"{how}_past_items"


REMEDY = (
    "keep its column, and give the feature a name of its own, such as name = 'book_author' beside "
    "column = 'Book-Author' (weights_name for the column of weights)"
)
"""What to do about a name that no input can have."""


def check_input_names(names: Iterable[str]) -> None:
    """Refuse names of features that cannot be inputs of a SavedModel.

    Raises:
        ConfigError: a name has other characters than letters, digits and `_`, is reserved, or
            differs from another in case only.
    """
    taken = {K, EXCLUDE, "self"}
    for name in names:
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
            raise ConfigError(
                f"feature {name!r}: expected a letter, then letters, digits and _, and no keyword "
                f"of Python's, as a SavedModel's input is called; {REMEDY}"
            )
        if name.lower() in taken:
            raise ConfigError(
                f"feature {name!r}: expected a name that no other input has, in lower case either; "
                f"{REMEDY}"
            )
        taken.add(name.lower())
