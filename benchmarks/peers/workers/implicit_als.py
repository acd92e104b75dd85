"""implicit's alternating least squares."""

from __future__ import annotations

from implicit.cpu.als import AlternatingLeastSquares  # type: ignore[import-not-found]

from benchmarks.peers.workers.contract import Factors, Job, work


def train(job: Job) -> Factors:
    """Factorize the interactions; a user without any gets a vector of zeros."""
    model = AlternatingLeastSquares(**job.settings, random_state=job.seed)
    model.fit(job.train, show_progress=False)
    return Factors(users=model.user_factors, items=model.item_factors)


if __name__ == "__main__":
    work(train, packages=("implicit",))
