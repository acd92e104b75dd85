"""implicit's Bayesian personalized ranking."""

from __future__ import annotations

from implicit.cpu.bpr import BayesianPersonalizedRanking  # type: ignore[import-not-found]

from benchmarks.peers.workers.contract import Factors, Job, work


def train(job: Job) -> Factors:
    """Factorize the interactions; the last dimension, implicit's own, is 1 and the item's bias.

    A user without interactions gets zeros but for that 1, and so the items with the largest bias.
    """
    model = BayesianPersonalizedRanking(**job.settings, random_state=job.seed)
    model.fit(job.train, show_progress=False)
    return Factors(users=model.user_factors, items=model.item_factors)


if __name__ == "__main__":
    work(train, packages=("implicit",))
