"""Fetch MovieLens 100k for the demo: 100,000 ratings of 1,682 films by 943 users (1997-98).

A machine may reach only a package index: RecBole's wheel holds the data, and is tried first; the
original at GroupLens comes second. Both give the same tables.

Source: F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 2015.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from serving.atomic import move_directory
from towers.errors import DataError

WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
ZIP_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ZIP_MD5 = "0e33842e24a9c977be4e0107933c0723"  # published md5
TIMEOUT_S = 120
TITLE = re.compile(r"^(?P<title>.*?) \((?P<year>[0-9]{4})\)(?: \(V\))?$")
"""A film's title as MovieLens writes it; (V) marks a video."""
GENRES = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
"""The genre columns of GroupLens' u.item, in their order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MovieLens:
    """The tables as text, as either source has them."""

    interactions: pd.DataFrame
    """user_id, item_id, rating, timestamp."""
    users: pd.DataFrame
    """user_id, age, gender, occupation."""
    items: pd.DataFrame
    """item_id, title with the year in brackets, genres (lists)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A place that has the data."""

    name: str
    algorithm: str
    digest: str
    """The digest of the downloaded file, in hexadecimal."""
    download: Callable[[Path], Path]
    """Downloads the file into a folder and returns its path; OSError if it cannot be reached."""
    parse: Callable[[Path], MovieLens]
    """Reads the tables from the file."""


def fetch_movielens_100k(
    cache_dir: Path,
    *,
    say: Callable[[str], None] | None = None,
    sources: Sequence[Source] | None = None,
) -> Path:
    """Put MovieLens 100k into a folder under `cache_dir`, unless it is there, and give its path.

    The folder holds interactions.parquet (user_id, item_id, rating, timestamp in seconds),
    users.parquet (user_id, age, gender, occupation) and items.parquet (item_id, title, year,
    genres as lists), all with integers for ids, and source.txt with the place it came from. It is
    written whole or not at all.

    Args:
        cache_dir: made if it does not exist.
        say: called with a sentence that says where the data comes from.
        sources: tried in order; by default the package index, then GroupLens.

    Raises:
        DataError: no source can be reached, or a file is not the one that is expected.
    """
    say = say or _keep_quiet
    folder = cache_dir / "movielens-100k"
    if folder.is_dir():
        origin = (folder / "source.txt").read_text(encoding="utf-8").strip()
        say(f"MovieLens 100k is in {folder}, from {origin}")
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".movielens-") as work:
        source, file = download(sources or default_sources(), Path(work), say=say)
        beside = Path(work) / "tables"
        _write(_tidy(source.parse(file)), beside, origin=source.name)
        _publish(beside, folder)
    say(f"MovieLens 100k is in {folder}, from {source.name}")
    return folder


def default_sources() -> tuple[Source, Source]:
    """The package index, then GroupLens."""
    return (
        Source(
            name=f"the package index ({WHEEL})",
            algorithm="sha256",
            digest=WHEEL_SHA256,
            download=_download_wheel,
            parse=parse_recbole,
        ),
        Source(
            name=f"GroupLens ({ZIP_URL})",
            algorithm="md5",
            digest=ZIP_MD5,
            download=_download_zip,
            parse=parse_grouplens,
        ),
    )


def parse_recbole(wheel: Path) -> MovieLens:
    """Take the tables from RecBole's wheel: tab-separated, with titles cut from their years."""
    with zipfile.ZipFile(wheel) as archive:
        ratings, users, items = (
            _read(archive, f"recbole/dataset_example/ml-100k/ml-100k.{end}", separator="\t")
            for end in ("inter", "user", "item")
        )
    for table in (ratings, users, items):
        table.columns = table.columns.str.partition(":").get_level_values(0)  # without the types
    titles = items["movie_title"] + " (" + items["release_year"] + ")"
    titles[items["release_year"] == "unkonwn"] = "unknown"  # their spelling of a missing value
    return MovieLens(
        interactions=ratings,
        users=users,
        items=pd.DataFrame(
            {"item_id": items["item_id"], "title": titles, "genres": items["class"].str.split(" ")}
        ),
    )


def parse_grouplens(archive_path: Path) -> MovieLens:
    """Take the tables from GroupLens' zip: latin-1, without headers, one column a genre."""
    with zipfile.ZipFile(archive_path) as archive:
        ratings = _read(
            archive,
            "ml-100k/u.data",
            separator="\t",
            columns=["user_id", "item_id", "rating", "timestamp"],
        )
        users = _read(
            archive,
            "ml-100k/u.user",
            separator="|",
            columns=["user_id", "age", "gender", "occupation", "zip_code"],
        )
        items = _read(
            archive,
            "ml-100k/u.item",
            separator="|",
            columns=["item_id", "title", "release_date", "video_release_date", "url", *GENRES],
        )
    flags = items[GENRES] == "1"
    genres = [[name for name in GENRES if flag[name]] for flag in flags.to_dict("records")]
    return MovieLens(
        interactions=ratings,
        users=users,
        items=pd.DataFrame(
            {"item_id": items["item_id"], "title": items["title"], "genres": genres}
        ),
    )


def _read(
    archive: zipfile.ZipFile, name: str, *, separator: str, columns: list[str] | None = None
) -> pd.DataFrame:
    """Read one file of an archive as text; those without a header are latin-1."""
    with archive.open(name) as file:
        return pd.read_csv(
            file,
            sep=separator,
            names=columns,
            dtype=str,
            keep_default_na=False,
            quoting=3,  # a quotation mark belongs to the title
            encoding="utf-8" if columns is None else "latin-1",
        )


def _tidy(raw: MovieLens) -> MovieLens:
    """Convert columns to their types, separate titles and years, and sort the rows."""
    titles = raw.items["title"].str.split().str.join(" ")  # some titles end in a space
    found = titles.str.extract(TITLE)
    items = pd.DataFrame(
        {
            "item_id": raw.items["item_id"].astype("int64"),
            "title": found["title"].fillna(titles),
            "year": found["year"].astype("Int64"),
            "genres": [sorted(set(names) - {"unknown"}) for names in raw.items["genres"]],
        }
    )
    users = raw.users[["user_id", "age", "gender", "occupation"]]
    interactions = raw.interactions[["user_id", "item_id", "rating", "timestamp"]].astype("int64")
    return MovieLens(
        interactions=interactions.sort_values(["timestamp", "user_id", "item_id"]),
        users=users.astype({"user_id": "int64", "age": "int64"}).sort_values("user_id"),
        items=items.sort_values("item_id"),
    )


def _write(tables: MovieLens, folder: Path, *, origin: str) -> None:
    """Write the tables as Parquet, and where they came from."""
    folder.mkdir()
    tables.interactions.to_parquet(folder / "interactions.parquet", index=False)
    tables.users.to_parquet(folder / "users.parquet", index=False)
    tables.items.to_parquet(folder / "items.parquet", index=False)
    (folder / "source.txt").write_text(f"{origin}\n", encoding="utf-8")


def _publish(beside: Path, folder: Path) -> None:
    """Rename a finished folder to its name, unless another process was faster."""
    try:
        move_directory(beside, folder)
    except OSError:
        if not folder.is_dir():
            raise


def download(
    sources: Sequence[Source], work: Path, *, say: Callable[[str], None]
) -> tuple[Source, Path]:
    """Download from the first source that can be reached, and check what came."""
    problems = []
    for source in sources:
        try:
            file = source.download(work)
        except OSError as error:
            say(f"MovieLens 100k: {source.name} cannot be reached")
            problems.append(f"  {source.name}: {error}")
            continue
        _check_digest(file, source)
        return source, file
    raise DataError(
        "MovieLens 100k cannot be downloaded:\n"
        + "\n".join(problems)
        + "\nconnect to one of them (pip's own settings name the package index), or run on tables "
        "of your own"
    )


def _check_digest(file: Path, source: Source) -> None:
    """Refuse a file that does not have the expected digest."""
    with file.open("rb") as content:
        received = hashlib.file_digest(content, source.algorithm).hexdigest()
    if received != source.digest:
        raise DataError(
            f"{file.name} from {source.name}: expected {source.algorithm} {source.digest}, "
            f"received {received}; the download is damaged or not the original: try again, and "
            "check the proxy or the mirror in between"
        )


def _download_wheel(folder: Path) -> Path:
    """Download the wheel with pip, from the package index that pip is configured for."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), WHEEL]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no answer within {TIMEOUT_S} s") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"pip ended with status {error.returncode}"]
        raise ConnectionError(lines[-1]) from None
    [wheel] = folder.glob("*.whl")
    return wheel


def _download_zip(folder: Path) -> Path:
    """Download the original archive."""
    path = folder / "ml-100k.zip"
    try:
        with urllib.request.urlopen(ZIP_URL, timeout=TIMEOUT_S) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except http.client.HTTPException as error:
        raise ConnectionError(f"the answer broke off: {error}") from None
    return path


def _keep_quiet(message: str) -> None:
    """Say nothing."""
