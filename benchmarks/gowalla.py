"""Train on Gowalla's official split, with the epochs chosen on a validation part of train.

Run: .venv/bin/python -m benchmarks.gowalla [--data data/gowalla] [--out build/gowalla]

The data, `train.txt` and `test.txt` with a user and its items a line, are LightGCN's. Epochs are
chosen on held-out train interactions, then the model is fitted again on all of train and looks at
the test once. Published on this split, as recall@20 / NDCG@20: LightGCN .1830 / .1554, SimpleX
.1872 / .1557, UltraGCN .1862 / .1580, all with the epoch chosen on the test.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from pipelines.config import load_config
from pipelines.display import show_results
from pipelines.progress import Reporter
from pipelines.run import run


def read_pairs(path: Path) -> pd.DataFrame:
    """Read lines of a user and its items into pairs."""
    lines = [
        np.array(line.split(), dtype=np.int64)
        for line in path.read_text(encoding="ascii").splitlines()
    ]
    users = np.repeat([line[0] for line in lines if len(line)], [len(line) - 1 for line in lines])
    items = np.concatenate([line[1:] for line in lines])
    return pd.DataFrame({"user_id": users, "item_id": items})


def main() -> None:
    """Train, publish and print the figures, the time and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/gowalla"))
    parser.add_argument("--out", type=Path, default=Path("build/gowalla"))
    given = parser.parse_args()
    console = Console()
    frames = {
        "interactions": read_pairs(given.data / "train.txt"),
        "test": read_pairs(given.data / "test.txt"),
    }
    config = load_config(Path(__file__).with_suffix(".toml"))
    start = time.perf_counter()
    show_results(console, run(config, given.out, frames=frames, reporter=Reporter(console)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"{time.perf_counter() - start:.0f} s in all, {peak:.2f} GiB at the peak")


if __name__ == "__main__":
    main()
