"""Regress the vectors that items have in the end on their features, all of them or some.

A cold item is the sum of its features. The ridge regression

    A = (X'X + c I)^-1 X'T

over the known items, with ids at the rest, leaves each of them as it is and moves only what has no
known id. Made without some items, it says of these what it would say of new ones: training has
moved features for the items that it has seen, so that hiding their ids is not enough.

Source: A. Hoerl, R. Kennard, Ridge regression: biased estimation for nonorthogonal problems,
Technometrics 1970.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.dataset import Dataset
from pipelines.training.embed import embed_items, embed_without_ids
from pipelines.training.initialize import set_rows
from towers.interactions.interaction import FM
from towers.start import fit_features
from towers.two_tower import TwoTower


def can_be_regressed(model: TwoTower, dataset: Dataset) -> bool:
    """Whether ids can take the rest: histories bring all of what an item is, or nothing of it."""
    (_, columns), dense = dataset.content_bags("item"), dataset.dense("item")
    return (
        isinstance(model.features.interaction, FM)
        and dataset.unknown_item_row is not None
        and len(columns) + dense.x.shape[1] > 0
        and all(
            history.vectors == "own" or history.item_features is None
            for history in dataset.schema.histories
        )
    )


def regress_features(
    model: TwoTower,
    dataset: Dataset,
    *,
    penalty: float,
    left_out: NDArray[np.int64] | None = None,
) -> None:
    """Set features to the regression over the known items, and their ids to the rest.

    The row of unknown ids then says nothing.

    Args:
        model: is changed in place; see `can_be_regressed`.
        dataset: has the items.
        penalty: c, how many items that say nothing those of a feature stand against.
        left_out: rows of items that the regression does not know, [n]. Their ids stay, and make
            no sense any more.
    """
    table, dense = model.features, dataset.dense("item")
    content, columns = dataset.content_bags("item")
    is_known = dataset.knows_item
    if left_out is not None:
        is_known[left_out] = False
    known = np.flatnonzero(is_known)
    ids, rows = dataset.id_rows("item")[known], np.concatenate([columns, np.r_[dense.rows]])
    x, numbers = sparse.csr_array(content[known]), dense.x[known]

    def embedded() -> NDArray[np.float32]:
        bags = sparse.csr_array(dataset.item_bags[known])
        return embed_items(model, bags, dense=dense.take(known))

    def fit(target: NDArray[np.float32]) -> NDArray[np.float32]:
        moments = np.concatenate([x.T @ target, numbers.T @ target]).astype(np.float32)
        return fit_features(x, moments, dense=numbers, penalty=penalty)

    wanted = embedded()
    unknown = [] if dataset.unknown_item_row is None else [dataset.unknown_item_row]
    silent = np.concatenate([ids, rows, unknown]).astype(np.int64)
    set_rows(table.v, np.zeros((len(silent), wanted.shape[1] - 1)), rows=silent)
    set_rows(table.w, np.zeros(len(silent)), rows=silent)
    rest = wanted - embedded()  # what unknown tokens say stays
    set_rows(table.v, fit(rest[:, 1:]), rows=rows)
    set_rows(table.w, fit((wanted - embedded())[:, :1])[:, 0], rows=rows)
    set_rows(table.v, (wanted - embedded())[:, 1:], rows=ids)
    set_rows(table.w, (wanted - embedded())[:, 0], rows=ids)


def embed_as_new(
    model: TwoTower, dataset: Dataset, items: NDArray[np.int64], *, penalty: float | None
) -> NDArray[np.float32]:
    """Embed some items as if they came after training; V_item [n, 1 + k].

    Args:
        model: is the same afterwards.
        dataset: has the items.
        items: their rows, [n].
        penalty: that of a regression which does not know them; None for the features as they are,
            whose ids alone are hidden.
    """
    if penalty is None:
        return embed_without_ids(model, dataset, items)
    table = model.features
    w, v = table.w.numpy(), table.v.numpy()
    try:
        regress_features(model, dataset, penalty=penalty, left_out=items)
        return embed_without_ids(model, dataset, items)
    finally:
        table.w.assign(w)
        table.v.assign(v)
