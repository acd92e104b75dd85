"""Build the index of a direction: shells by length, each in the way that serves it best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.publishing.build_shell import SOME, Asked, BuiltShell, build_shell
from pipelines.publishing.choose_effort import Choice, Option, choose_effort, undominated
from pipelines.publishing.cut_by_length import cut_by_length
from pipelines.publishing.draw_queries import Queries, one_of
from pipelines.results import AnnSetting
from serving.search import scann_index
from serving.search.equal_vectors import Places
from serving.search.index import Found, Rows, Vectors
from serving.search.scann_index import ScannIndex, ScannSettings, Storage
from serving.search.shells import Shell, Shells
from towers.errors import RecallGateError

NEAR = 4
"""Of the options around the one that some of the queries choose, so many on either side are
measured with all queries."""

DEAR = 1 / 3
"""One tree of all vectors is tried too where the longest cost more than this share of a search."""


def build_index(
    vectors: Vectors,
    queries: Queries,
    *,
    exact: Found,
    recall: float,
    storage: Storage = "float32",
) -> tuple[Shells, list[AnnSetting]]:
    """Index `vectors` [n, d], and search as little of it as finds enough for all kinds of queries.

    Args:
        vectors: what to index.
        queries: what to ask.
        exact: what an exact search finds for the queries; recall is counted over as many.
        recall: the share of these that must be found.
        storage: how trees keep the vectors.

    Returns:
        The index, with the settings chosen; and the best settings at each cost. Of few vectors
        every one is scored, there is nothing to choose, and nothing is measured.

    Raises:
        RecallGateError: no settings find enough.
    """
    k = exact[0].shape[1]
    if len(vectors) < max(scann_index.FEWEST_FOR_TREE, 10 * k):
        every = ScannSettings(num_leaves=None, reorder=k, recall_k=k)
        index = ScannIndex.build(vectors, every)
        return Shells((Shell(index, np.arange(len(vectors)), np.inf),)), []
    places = Places.of(vectors)
    distinct, wanted = vectors, exact[0]
    if places is not None:
        distinct, wanted = vectors[places.rows[places.starts[:-1]]], places.of_rows(wanted)
    lengths = np.linalg.norm(distinct, axis=1)

    def tried(cuts: Sequence[Rows]) -> _Trial:
        built = [
            build_shell(
                distinct[rows],
                Asked.of(queries.vectors, wanted, rows, n_all=len(distinct)),
                n_all=len(distinct),
                recall=recall,
                storage=storage,
            )
            for rows in cuts
        ]
        return _Trial(cuts, built, *_choose(built, queries.groups, k=k, recall=recall))

    trial = tried(cut_by_length(lengths, wanted))
    if trial.may_lose_to_one_tree:
        alone = tried([np.concatenate(trial.cuts)])
        trial = min(trial, alone, key=lambda x: (x.best.surely < recall, x.best.cost_us))
    if trial.best.surely < recall:
        raise RecallGateError(_refusal(trial.best, recall=recall, k=k, n=len(queries.vectors)))
    return Shells(tuple(trial.shells(distinct, lengths)), places), trial.settings


@dataclass(frozen=True, eq=False)
class _Trial:
    """Shells as they were cut, the best of their trees, and the options chosen."""

    cuts: Sequence[Rows]
    built: Sequence[BuiltShell]
    best: Choice
    bargains: Sequence[Choice]

    @property
    def may_lose_to_one_tree(self) -> bool:
        """Whether a tree of all vectors could be much cheaper: it saves the longest, at best."""
        return len(self.cuts) > 1 and self.best.options[0].cost_us > DEAR * self.best.cost_us

    @property
    def settings(self) -> list[AnnSetting]:
        """The best at each cost, as lines of the report."""
        return [choice.setting(is_chosen=choice is self.best) for choice in self.bargains]

    def shells(self, vectors: Vectors, lengths: Vectors) -> Iterator[Shell]:
        """The shells of vectors of these lengths, with the options chosen."""
        for shell, option, rows in zip(self.built, self.best.options, self.cuts, strict=True):
            yield Shell(shell.take(option.settings, vectors, rows), rows, float(lengths[rows[0]]))


def _choose(
    built: Sequence[BuiltShell], groups: Mapping[str, slice], *, k: int, recall: float
) -> tuple[Choice, list[Choice]]:
    """Choose by some of the queries, and among what is near that by all of them."""
    rough = [undominated(shell.rough) for shell in built]
    fewer = {name: one_of(SOME, part) for name, part in groups.items()}
    about, _ = choose_effort(rough, fewer, k=k, recall=recall)
    near = [_around(options, chosen) for options, chosen in zip(rough, about.options, strict=True)]
    for options in (near, rough):
        measured = [shell.measured(some) for shell, some in zip(built, options, strict=True)]
        best, bargains = choose_effort(measured, groups, k=k, recall=recall)
        if best.surely >= recall:
            break
    return best, bargains


def _around(options: Sequence[Option], chosen: Option) -> Sequence[Option]:
    """The options next to the one that was chosen."""
    at = next(number for number, option in enumerate(options) if option is chosen)
    return options[max(0, at - NEAR) : at + NEAR + 1]


def _refusal(best: Choice, *, recall: float, k: int, n: int) -> str:
    """Say what was reached, by which kind of query, and what to do."""
    kinds = ", ".join(f"{name} {share:.4f}" for name, share in best.reached.items())
    leaves = best.setting(is_chosen=False)
    return (
        f"expected recall@{k} of {recall} over {n} sampled queries, reached "
        f"{min(best.reached.values()):.4f} ({kinds}) with {leaves['leaves_to_search']} of "
        f"{leaves['leaves']} leaves and {leaves['reorder']} vectors reordered; lower index.recall, "
        'set index.storage to a finer one, or choose index.kind = "exact"'
    )
