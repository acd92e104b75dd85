"""Place the features of items anew, where those that are known of few items would mislead.

Features start at a ridge regression of the items' vectors on them, and training moves them as the
items need that have them. Where a feature comes with few items, or items go together for reasons
that no feature tells, such as their time, it knows its items by heart, which says little of the
next one. So the regression is made again, of the vectors that items have in the end; see
`regress_features`. Its penalties are compared by how well items are ranked among themselves which
the features do not know: the cold items of the validation part, beside the features as they are;
or, where it has hardly any of them, known items that are left out of the regression, a part at a
time.

Source: M. Stone, Cross-validatory choice and assessment of statistical predictions, JRSS B 1974.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, sample_users
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import recall_and_ndcg
from pipelines.evaluation.left_out import LeftOut, NotYet
from pipelines.evaluation.metrics import Floats
from pipelines.evaluation.race import standard_error
from pipelines.progress import Reporter
from pipelines.training.calibrate import FEWEST, USERS
from pipelines.training.embed import embed
from pipelines.training.fit import Fit, Fitted
from pipelines.training.regress_features import can_be_regressed, embed_as_new, regress_features
from towers.two_tower import TwoTower

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""c that are tried; vectors start with 1."""
FOLDS = 3
"""Parts of the known items, of which one at a time is left out."""
ENOUGH = 10_000
"""Items that are left out in all, or those of one part."""


def measure_features(fitted: Fitted, job: Fit, reporter: Reporter) -> float | None:
    """Choose the penalty by which items that features do not know are ranked best.

    Where validation has at least `FEWEST` positives of items without a training interaction, these
    are ranked among themselves, and a penalty is taken where it is better than the features as they
    are by more than one standard error of the paired difference over users. Elsewhere a part of the
    known items at a time is left out of the regression and of histories, and ranked for those who
    have chosen one. Features as they are cannot take part in that, since training knows all items
    by them: the best penalty is taken.

    Args:
        fitted: the model; it is the same afterwards.
        job: its data, with a validation part.
        reporter: shows how many penalties are tried.

    Returns:
        None where nothing is better or nothing can be placed.
    """
    dataset, model = job.dataset, fitted.model
    if job.validation is None or not can_be_regressed(model, dataset):
        return None
    cold = np.flatnonzero(dataset.interactions.item_counts == 0)
    wanted = sparse.csr_array(job.validation[:, cold])
    if wanted.nnz >= FEWEST:
        found = _try((None, *PENALTIES), [_cold(model, job, cold, wanted)], model, job, reporter)
        best = max(PENALTIES, key=lambda penalty: found[penalty].mean())
        gain = found[best] - found[None]
        return best if gain.mean() > standard_error(gain) else None
    found = _try(PENALTIES, _left_out(model, job), model, job, reporter)
    if len(found[PENALTIES[0]]) < FEWEST:
        return None
    return max(PENALTIES, key=lambda penalty: found[penalty].mean())


def place_features(
    fitted: Fitted, job: Fit, reporter: Reporter, *, penalty: float | None
) -> Fitted:
    """Make the regression with a penalty, in place, and keep the model in a checkpoint.

    Nothing is done without a penalty.
    """
    if penalty is None or not can_be_regressed(fitted.model, job.dataset):
        return fitted
    regress_features(fitted.model, job.dataset, penalty=penalty)
    reporter.say(
        f"  features of items without a known id: a regression of the items' vectors, in which "
        f"those of a feature stand against {penalty:g} that say nothing"
    )
    return fitted.kept(feature_penalty=penalty)


@dataclass(frozen=True, eq=False)
class _Asked:
    """Who is asked for some items, which are ranked among themselves as if they were new."""

    items: NDArray[np.int64]
    """[n_items]."""
    users: NDArray[np.float32]
    """V_user [n, 1 + k]."""
    wanted: sparse.csr_array
    """[n, n_items]."""
    left_out: LeftOut
    """What is not ranked, of the same users and items."""
    metric: str

    def figures(self, model: TwoTower, dataset: Dataset, penalty: float | None) -> Floats:
        """The sum of recall and NDCG of each user with a penalty."""
        items = embed_as_new(model, dataset, self.items, penalty=penalty)
        return recall_and_ndcg(
            lambda asked: self.users[asked] @ items.T,
            test=self.wanted,
            left_out=self.left_out,
            metric=self.metric,
        )


def _try(
    penalties: Sequence[float | None],
    asked: Iterable[_Asked],
    model: TwoTower,
    job: Fit,
    reporter: Reporter,
) -> Mapping[float | None, Floats]:
    """The figures of all users by penalty."""
    found: dict[float | None, list[Floats]] = {penalty: [] for penalty in penalties}
    for one in asked:
        with reporter.bar("penalty of features", len(penalties)) as advance:
            for penalty, figures in found.items():
                figures.append(one.figures(model, job.dataset, penalty))
                advance(1)
    return {penalty: np.concatenate([[], *figures]) for penalty, figures in found.items()}


def _cold(model: TwoTower, job: Fit, items: NDArray[np.int64], wanted: sparse.csr_array) -> _Asked:
    """Validation's users, and who of them wants which of the cold items, [n_users, n]."""
    test = sample_users(HeldInteractions(wanted), limit=USERS, seed=job.config.seed)
    users = np.flatnonzero(np.diff(test.indptr))
    not_yet = job.not_yet
    if not_yet is not None:
        not_yet = NotYet(not_yet.there[items], not_yet.asked[users])
    return _Asked(
        items=items,
        users=embed(model, job.dataset, only_users=users)["user"][users],
        wanted=sparse.csr_array(test[users]),
        left_out=LeftOut(sparse.csr_array(job.left_out.seen[users][:, items]), not_yet),
        metric=job.config.evaluation.metric,
    )


def _left_out(model: TwoTower, job: Fit) -> Iterator[_Asked]:
    """Parts of the known items, and users who chose one of them and something else."""
    dataset, rng = job.dataset, np.random.default_rng(job.config.seed)
    parts = np.array_split(rng.permutation(np.flatnonzero(dataset.knows_item)), FOLDS)
    likes = sample_users(dataset.interactions, limit=USERS, seed=job.config.seed)
    for items in parts[: max(1, ENOUGH // max(len(parts[0]), 1))]:
        wanted = sparse.csr_array(likes[:, items])
        sizes = np.diff(wanted.indptr)
        users = np.flatnonzero((sizes > 0) & (sizes < np.diff(likes.indptr)))
        vectors = embed(model, dataset.forgetting(items), only_users=users)
        yield _Asked(
            items=items,
            users=vectors["user"][users],
            wanted=sparse.csr_array(wanted[users]),
            left_out=LeftOut(sparse.csr_array((len(users), len(items)), dtype=np.bool_)),
            metric=job.config.evaluation.metric,
        )
