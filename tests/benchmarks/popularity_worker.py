"""A worker without a package: it ranks by popularity, or fails as its settings say."""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.peers.workers.contract import Factors, Job, work


def train(job: Job) -> Factors:
    fault = job.settings.get("fault")
    if fault == "exit":
        sys.exit("out of luck")
    counts = job.train.getnnz(axis=0)
    items = np.unique(counts, return_inverse=True)[1].astype(np.float32)[:, np.newaxis]
    users = np.ones((job.train.shape[0], 1), dtype=np.float32)
    if fault == "shape":
        users = users[1:]
    if fault == "nan":
        items[0] = np.nan
    if job.settings.get("only_warm_users"):
        users[job.train.getnnz(axis=1) == 0] = 0.0
    graph = job.train if job.settings.get("graph") else None
    return Factors(users=users, items=items, graph=graph)


if __name__ == "__main__":
    work(train, packages=("numpy",))
