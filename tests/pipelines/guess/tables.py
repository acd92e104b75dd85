"""Small tables as they come: a wide log of rentals, files of books, files without a header."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

BODIES = ("pear", "apple", "athletic", "hourglass")
SORTS = ("gown", "top", "dress")
WORDS = tuple("great fit lovely wore this for a wedding would rent again zipper".split())  # noqa: SIM905


def rentals(folder: Path, *, n: int = 900) -> Path:
    """JSON lines, compressed: user and item features in each row of the interactions."""
    rng = np.random.default_rng(1)
    path = folder / "rentals.json.gz"
    weights, feet = rng.integers(95, 220, 120), rng.integers(4, 7, 120)
    rows = []
    for _ in range(n):
        user, item = int(rng.integers(120)), int(60 * rng.random() ** 2)
        day = pd.Timestamp("2014-01-01") + pd.Timedelta(days=int(rng.integers(1000)))
        rows.append(
            {
                "fit": str(rng.choice(["fit", "small", "large"])),
                "user_id": str(5000 + user),
                "item_id": str(10_000 + 7 * item),
                "weight": f"{weights[user]}lbs",
                "height": f"{feet[user]}' {user % 12}\"",
                "body type": BODIES[user % 4],
                "rating": str(rng.choice([10, 8, 6, 4, 2], p=[0.6, 0.2, 0.1, 0.05, 0.05])),
                "review_text": " ".join(rng.choice(WORDS, 20)),
                "category": SORTS[item % 3],
                "review_date": f"{day:%B} {day.day}, {day.year}",
            }
        )
        if rng.random() < 0.2:
            rows[-1].pop("weight")
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return path


def books(folder: Path) -> list[Path]:
    """CSV in latin-1, with semicolons, quotes, backslashes before quotes, and ratings of 0."""
    rng = np.random.default_rng(2)
    isbns = [f"{rng.integers(10**9):09d}{'0123X'[k % 5]}" for k in range(80)]
    authors = ["Amélie Nothomb", "Stephen King", *(f"Author {k}" for k in range(20))]
    titles = [f'A \\"quoted\\"; title {k}' if k % 9 else f"Über {k}" for k in range(80)]
    tables: dict[str, list[list[Any]]] = {
        "BX-Books.csv": [
            ["ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Image-URL"],
            *(
                [isbn, title, authors[k % 22], 1950 + k % 50, f"http://x.com/{k}.jpg"]
                for k, (isbn, title) in enumerate(zip(isbns[:75], titles, strict=False))
            ),
        ],
        "BX-Users.csv": [
            ["User-ID", "Location", "Age"],
            *(
                [u, f"town {u % 9}, state {u % 4}, usa", None if u % 3 else 20 + u % 50]
                for u in range(1, 151)
            ),
        ],
        "BX-Ratings.csv": [
            ["User-ID", "ISBN", "Book-Rating"],
            *(
                [1 + k % 150, isbns[int(80 * rng.random() ** 2)], rng.choice([0, 5, 7, 8, 9, 10])]
                for k in range(1200)
            ),
        ],
    }
    for name, rows in tables.items():
        lines = [";".join("NULL" if x is None else f'"{x}"' for x in row) for row in rows]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="latin-1")
    return [folder / name for name in tables]


def films(folder: Path) -> Path:
    """A folder of files without a header, with `::` between fields."""
    rng = np.random.default_rng(3)
    inside = folder / "films"
    inside.mkdir()
    users = [f"{u}::{'MF'[u % 2]}::{18 + u % 7}::0{2139 + u % 40}" for u in range(1, 101)]
    movies = [f"{m}::Film é {m} (19{m % 90 + 10})::Drama|{SORTS[m % 3]}" for m in range(1, 71)]
    pairs = {(int(rng.integers(1, 101)), int(1 + 70 * rng.random() ** 2)) for _ in range(1500)}
    ratings = [
        f"{u}::{m}::{rng.integers(1, 6)}::{978_300_000 + int(rng.integers(10**6))}"
        for u, m in sorted(pairs)
    ]
    for name, lines in {"users": users, "movies": movies, "ratings": ratings}.items():
        (inside / f"{name}.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    (inside / "README").write_text("Films.\n\nThey are made up, and of no use.\n")
    return inside
