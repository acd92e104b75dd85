"""Train one model with several workers on this machine: quality, time, and what they send.

Run: .venv/bin/python -m benchmarks.several_workers benchmarks/movielens-1m.toml --workers 1 2 4

Fits on all but the test with so many processes on loopback, each with one thread, and prints for
each number of workers recall and NDCG on the test, seconds an epoch, processor seconds of all
processes an epoch and of one a step, the rows of the feature table that a worker touches in a step,
and the bytes that it sends for them. On as many cores as there are workers the time of a step is
the processor time of one worker and that of the wire, so that the last column, in Gbit/s, is the
bandwidth from which a step of N machines takes less time than that of one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.final import final_parts
from benchmarks.time_to_quality import with_start
from pipelines.config import RunConfig, load_config
from pipelines.data.prepare import Prepared, prepare
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.left_out import LeftOut
from pipelines.progress import Reporter
from pipelines.training.choose_start import powers_of, settled, with_powers
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import Fit, Record, fit, follow
from pipelines.workers.cluster import join, read_cluster
from towers.environment import THREADS, cluster_text

FIRST_PORT = 27_300
ENTRY_BYTES, ROW_BYTES = 4, 8
"""What an entry of a gradient takes, and the number of a row."""
POWERS = "powers.json"
HEADER = "workers   recall     NDCG   s/epoch  CPU s/epoch  CPU ms/step  rows/step  MB/step  Gbit/s"


def main() -> None:
    """Print the table; or be one of the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    config = load_config(given.config)
    training = dataclasses.replace(config.training, epochs=given.epochs)
    config = dataclasses.replace(config, training=training, seed=given.seeds[0])
    if given.folder is not None:
        print(json.dumps(work(config, given.folder)))
        return
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = prepare(config, folder / "prepared")
        powers = powers_of(with_start(config, prepared, Reporter()))
        (folder / POWERS).write_text(json.dumps(powers), encoding="utf-8")
        alone_ms: list[float] = []
        for count in given.workers:
            for seed in given.seeds:
                found = run_workers(given, folder, count=count, seed=seed)
                print(line(found, alone_ms[0] if alone_ms else None), flush=True)
                if count == 1:
                    alone_ms.append(found[0]["cpu_ms_a_step"])


def run_workers(
    given: argparse.Namespace, folder: Path, *, count: int, seed: int
) -> list[dict[str, Any]]:
    """Fit with some workers; what each of them has measured, the chief first.

    Raises:
        CalledProcessError: one of them failed.
    """
    command = [sys.executable, "-m", "benchmarks.several_workers", str(given.config)]
    command += ["--folder", str(folder), "--epochs", str(given.epochs), "--seeds", str(seed)]
    addresses = [f"localhost:{FIRST_PORT + number}" for number in range(count)]
    started = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | dict.fromkeys(THREADS, "1") | {"TF_CONFIG": json.dumps(task)}
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate()[0] for process in started]
    for process in started:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def work(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Be one of the workers, or train alone; what this process has measured."""
    workers = join(read_cluster(cluster_text()), lambda text: None)
    prepared = Prepared.load(folder / "prepared")
    powers = json.loads((folder / POWERS).read_text(encoding="utf-8"))
    config = with_powers(settled(config), **powers)
    dataset, test = final_parts(config, prepared)
    times: list[float] = []
    records: list[Record] = []

    def note(record: Record) -> None:
        records.append(record)
        times.append(time.process_time())

    directory = folder / f"fit-{workers.count}-{config.seed}"
    job = Fit(
        dataset=dataset,
        config=config,
        epochs=config.training.epochs,
        mined=None,
        validation=None,
        directory=directory,
        logs=directory / "logs",
        on_epoch=note,
        workers=workers,
    )
    if not workers.is_chief:
        follow(job, Reporter())
        return {"cpu_s": time.process_time()}
    fitted = fit(job, Reporter())
    users = np.flatnonzero(np.diff(test.indptr))
    known = dataset.interactions.of(users)
    found = evaluate(
        match_scorer(embed(fitted.model, dataset, only_users=users)),
        train=known,
        left_out=LeftOut(known),
        item_counts=dataset.interactions.item_counts,
        test=test,
        config=dataclasses.replace(config.evaluation, k=(20,), metric="recall@20"),
    )
    cpu_s = float(np.median(np.diff(times)))  # without the first epoch, which traces the graph
    width = int(fitted.model.features.v.shape[1]) + 1
    rows = float(np.mean([record.get("rows_touched", 0.0) for record in records]))
    return {
        "workers": workers.count,
        "recall": found.metric("recall@20"),
        "ndcg": found.metric("ndcg@20"),
        "epoch_s": float(np.median([record["seconds"] for record in records[1:]])),
        "cpu_s": cpu_s,
        "cpu_ms_a_step": 1e3 * cpu_s / records[0]["steps"],
        "rows": rows,
        "bytes": rows * (width * ENTRY_BYTES + ROW_BYTES) * (workers.count - 1),
    }


def line(found: Sequence[dict[str, Any]], alone_ms: float | None) -> str:
    """A line of the table; `alone_ms` is what a step takes one worker alone."""
    chief = found[0]
    n, gained = chief["workers"], None if alone_ms is None else alone_ms - chief["cpu_ms_a_step"]
    if n == 1 or gained is None:
        needed = "-"
    else:
        needed = f"{chief['bytes'] * 8e-6 / gained:.1f}" if gained > 0 else "never"
    return (
        f"{n:7d}  {chief['recall']:.4f}   {chief['ndcg']:.4f}  {chief['epoch_s']:8.1f}"
        f"  {chief['cpu_s'] * n:11.1f}  {chief['cpu_ms_a_step']:11.1f}  {chief['rows']:9,.0f}"
        f"  {chief['bytes'] / 1e6:7.2f}  {needed:>6}"
    )


if __name__ == "__main__":
    main()
