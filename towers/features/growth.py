"""Growth: a vocabulary that learns new tokens while every row keeps what it stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from towers.errors import DataError
from towers.features.schema import SIDES, Schema, space_of
from towers.features.values import is_integer_text
from towers.features.vocabulary import Coordinates, Space, Tokens, Vocabulary, fit_vocabulary


def grow_vocabulary(
    vocabulary: Vocabulary,
    schema: Schema,
    *,
    users: pd.DataFrame,
    items: pd.DataFrame,
    user_counts: NDArray[np.int64],
    item_counts: NDArray[np.int64],
    contexts: pd.DataFrame | None = None,
    context_counts: NDArray[np.int64] | None = None,
) -> Vocabulary:
    """Give rows to the tokens that the training interactions show for the first time.

    Old tokens keep their rows, also those that the tables no longer have; new ones get rows from
    `vocabulary.n_rows` on, in order of their spaces and their values. Counts are those of these
    interactions, and what they were for tokens that no longer occur. Hashed spaces, out-of-
    vocabulary rows, scales and bucket boundaries stay as they are: a vector learned for x keeps its
    meaning only as long as x does.

    Args:
        vocabulary: an earlier one, of the same schema.
        schema: the features.
        users: one row a user, with the id column first and the columns of features as they are.
        items: one row an item, likewise.
        user_counts: the number of training interactions of each user, [n_users].
        item_counts: the same of each item, [n_items].
        contexts: one row a moment, with the columns of the context, where there is one.
        context_counts: the number of training interactions of each moment, [n_moments].

    Raises:
        DataError: a column holds text where the vocabulary holds integers, ids are of another
            type, or vectors of another length.
    """
    seen = fit_vocabulary(
        schema,
        users=users,
        items=items,
        user_counts=user_counts,
        item_counts=item_counts,
        contexts=contexts,
        context_counts=context_counts,
    )
    spaces: dict[str, Space] = {}
    ids = {f"{side}.{schema.id_input(side)}" for side in SIDES}
    ids |= {space_of(history, side="user", schema=schema) for history in schema.histories}
    n_rows = vocabulary.n_rows
    for name, space in vocabulary.spaces.items():
        found = seen.spaces[name]
        if isinstance(space, Tokens) and isinstance(found, Tokens):
            grown = _grow(space, found, name=name, first_row=n_rows, is_id=name in ids)
            n_rows += len(grown.tokens) - len(space.tokens)
            spaces[name] = grown
        else:
            _check_length(space, found, name=name)
            spaces[name] = space
    return Vocabulary(spaces=spaces, n_rows=n_rows)


def inherited_rows(vocabulary: Vocabulary, *, n_old: int) -> NDArray[np.int64]:
    """Say which of an earlier table's `n_old` rows each row starts from, [n_rows].

    An old row starts from itself, and a new token from the out-of-vocabulary row that has stood for
    it until now.
    """
    rows = np.arange(vocabulary.n_rows)
    for space in vocabulary.spaces.values():
        if isinstance(space, Tokens):
            rows[space.rows[space.rows >= n_old]] = space.oov_row
    return rows


def _grow(space: Tokens, found: Tokens, *, name: str, first_row: int, is_id: bool) -> Tokens:
    """Add the tokens of `found` that `space` lacks, with rows from `first_row` on.

    Where text was learned, a column that now holds integers only is read as text; ids never are.
    """
    if not len(found.tokens):
        return space
    if not len(space.tokens):
        return replace(found, rows=_rows(first_row, len(found.tokens)), oov_row=space.oov_row)
    if found.is_integer and not space.is_integer and not is_id:
        found = _as_text(found)
    if space.is_integer != found.is_integer:
        kinds = {True: "integers", False: "text"}
        raise DataError(
            f"{name}: expected {kinds[space.is_integer]}, as in the earlier vocabulary, received "
            f"{kinds[found.is_integer]}, such as {_example(found)!r}; convert the column, or train "
            "from the start"
        )
    is_new = pd.Index(space.tokens).get_indexer(pd.Index(found.tokens)) < 0
    tokens = np.concatenate([space.tokens, found.tokens[is_new]])
    rows = np.concatenate([space.rows, _rows(first_row, int(is_new.sum()))])
    counts = np.concatenate([_recount(space, found), found.counts[is_new]])
    order = np.argsort(tokens, kind="stable")
    return Tokens(
        tokens=tokens[order], rows=rows[order], counts=counts[order], oov_row=space.oov_row
    )


def _check_length(space: Space, found: Space, *, name: str) -> None:
    """Refuse vectors of another length.

    Raises:
        DataError: they are.
    """
    lengths = [one.size for one in (space, found) if isinstance(one, Coordinates)]
    if len(set(lengths)) > 1:
        raise DataError(
            f"{name}: expected lists of {lengths[0]} numbers, as in the earlier vocabulary, "
            f"received lists of {lengths[1]}; convert the column, or train from the start"
        )


def _as_text(space: Tokens) -> Tokens:
    """The same tokens as text, in its order."""
    tokens = np.array([str(token) for token in space.tokens], dtype=object)
    order = np.argsort(tokens, kind="stable")
    return replace(space, tokens=tokens[order], rows=space.rows[order], counts=space.counts[order])


def _example(space: Tokens) -> Any:
    """A token that shows the type of all: of texts, one that is no integer if there is any."""
    tokens = space.tokens.tolist()
    return next((x for x in tokens if not is_integer_text(str(x))), tokens[0])


def _recount(space: Tokens, found: Tokens) -> NDArray[np.int64]:
    """The counts of the tokens of `space` as `found` has them, or else as they were."""
    at = pd.Index(found.tokens).get_indexer(pd.Index(space.tokens))
    return np.where(at >= 0, found.counts[at], space.counts)


def _rows(first: int, size: int) -> NDArray[np.int64]:
    """`size` rows from `first` on."""
    return np.arange(first, first + size, dtype=np.int64)
