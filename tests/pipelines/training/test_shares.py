"""The shares that several workers have of a batch."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.workers.workers import Workers
from tests.pipelines.training.folds_support import decode, epoch, make_batches

COUNT = 5


@pytest.mark.parametrize("contexts", ["others", "past"])
def test_each_worker_has_its_share_of_every_batch(contexts: str) -> None:
    """The last batch has a query less than there are workers: one has none, and does not count."""
    alone = make_batches(contexts=contexts)
    whole = [decode(batch) for batch in epoch(alone)]
    assert len(whole[-1].users) == COUNT - 1
    shares = [
        [
            decode(batch)
            for batch in epoch(dataclasses.replace(alone, workers=Workers(index, COUNT)))
        ]
        for index in range(COUNT)
    ]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        for index, part in enumerate(parts):
            users = batch.users[index::COUNT]
            positives = batch.positives[index::COUNT]
            if not users:
                assert part.users == batch.users[:1]
                assert {weight for _, weight in part.positives[0]} == {0.0}
                continue
            assert part.users == users
            assert part.positives == positives
        assert len({tuple(part.shared) for part in parts}) > 1  # negatives of their own
    assert all(len(share) == len(whole) for share in shares)
