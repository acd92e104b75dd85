"""Place the features of items anew, where those that are known of few items would mislead.

A cold item is the sum of its features. These start at a ridge regression of the items' vectors on
them, and training moves them as the items need that have them. Where a feature comes with few
items, or items go together for reasons that no feature tells, such as their time, it knows its
items by heart, which says little of the next one. So the regression is made again, of the vectors
that items have in the end,

    A = (X'X + c I)^-1 X'T,

and ids take the rest: each known item keeps its vector and its first-order term, and only what has
no known id moves. c is how many items that say nothing the items of a feature stand against. The
penalties c are compared with the features as they are, by how well validation's cold items are
ranked among themselves.

Source: A. Hoerl, R. Kennard, Ridge regression: biased estimation for nonorthogonal problems,
Technometrics 1970.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, sample_users
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import recall_and_ndcg
from pipelines.evaluation.left_out import LeftOut, NotYet
from pipelines.evaluation.metrics import Floats
from pipelines.evaluation.race import standard_error
from pipelines.progress import Advance, Reporter
from pipelines.training.calibrate import FEWEST, USERS
from pipelines.training.embed import embed, embed_items, embed_without_ids
from pipelines.training.fit import Fit, Fitted
from pipelines.training.initialize import set_rows
from towers.interactions.interaction import FM
from towers.start import fit_features
from towers.two_tower import TwoTower

PENALTIES = (3.0, 10.0, 30.0, 100.0)
"""c that are tried; vectors start with 1."""


def measure_features(fitted: Fitted, job: Fit, reporter: Reporter) -> float | None:
    """Choose the penalty by which validation's cold items are ranked best among themselves.

    Cold are the items without a training interaction; nothing else tells what training has learned
    of features apart from the items that it has seen. A penalty is taken where it is better than
    the features as they are by more than one standard error of the paired difference over users.

    Args:
        fitted: the model; it is the same afterwards.
        job: its data, with a validation part.
        reporter: shows how many penalties are tried.

    Returns:
        None where nothing is better, nothing can be placed, or validation has hardly any positives
        among cold items.
    """
    dataset, validation = job.dataset, job.validation
    if validation is None or not _can_be_placed(fitted.model, dataset):
        return None
    cold = np.flatnonzero(dataset.interactions.item_counts == 0)
    wanted = sparse.csr_array(validation[:, cold])
    if wanted.nnz < FEWEST:
        return None
    trials = _Trials(fitted.model, job, cold=cold, wanted=wanted)
    with reporter.bar("penalty of features", 1 + len(PENALTIES)) as advance:
        return trials.best(advance)


class _Trials:
    """Ranks cold items among themselves with features as they are, and by penalties."""

    def __init__(
        self, model: TwoTower, job: Fit, *, cold: NDArray[np.int64], wanted: sparse.csr_array
    ) -> None:
        """Take the items [n], and who wants which of these, [n_users, n]."""
        self._model, self._dataset, self._cold = model, job.dataset, cold
        self._metric, not_yet = job.config.evaluation.metric, job.not_yet
        self._test = sample_users(HeldInteractions(wanted), limit=USERS, seed=job.config.seed)
        if not_yet is not None:
            not_yet = NotYet(not_yet.there[cold], not_yet.asked)
        self._left_out = LeftOut(sparse.csr_array(job.left_out.seen[:, cold]), not_yet)
        users = np.flatnonzero(np.diff(self._test.indptr))
        self._place = np.searchsorted(users, np.arange(wanted.shape[0]))
        self._users = embed(model, job.dataset, only_users=users)["user"][users]

    def best(self, advance: Advance) -> float | None:
        """The best penalty; None where the features as they are are about as good."""
        table = self._model.features
        before = table.w.numpy(), table.v.numpy()
        as_it_is, found = self._measure(), {}
        advance(1)
        for penalty in PENALTIES:
            regress_features(self._model, self._dataset, penalty=penalty)
            found[penalty] = self._measure()
            table.w.assign(before[0])
            table.v.assign(before[1])
            advance(1)
        best = max(found, key=lambda penalty: found[penalty].mean())
        gain = found[best] - as_it_is
        return best if gain.mean() > standard_error(gain) else None

    def _measure(self) -> Floats:
        """The sum of recall and NDCG of each user."""
        items = embed_without_ids(self._model, self._dataset, self._cold)
        return recall_and_ndcg(
            lambda asked: self._users[self._place[asked]] @ items.T,
            test=self._test,
            left_out=self._left_out,
            metric=self._metric,
        )


def place_features(
    fitted: Fitted, job: Fit, reporter: Reporter, *, penalty: float | None
) -> Fitted:
    """Make the regression with a penalty, in place, and keep the model in a checkpoint.

    Nothing is done without a penalty.
    """
    if penalty is None or not _can_be_placed(fitted.model, job.dataset):
        return fitted
    regress_features(fitted.model, job.dataset, penalty=penalty)
    reporter.say(
        f"  features of items without a known id: a regression of the items' vectors, in which "
        f"those of a feature stand against {penalty:g} that say nothing"
    )
    return fitted.kept(feature_penalty=penalty)


def regress_features(model: TwoTower, dataset: Dataset, *, penalty: float) -> None:
    """Set features to the regression over the known items, and their ids to the rest.

    The row of unknown ids then says nothing.
    """
    table, dense = model.features, dataset.dense("item")
    content, columns = dataset.content_bags("item")
    known = np.flatnonzero(dataset.knows_item)
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


def _can_be_placed(model: TwoTower, dataset: Dataset) -> bool:
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
