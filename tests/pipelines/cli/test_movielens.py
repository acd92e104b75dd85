from __future__ import annotations

import hashlib
import http.client
import io
import subprocess
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.cli.movielens import GENRES, Source, default_sources, fetch_movielens_100k
from towers.errors import DataError

TABLES = ("interactions", "users", "items")
RECBOLE = {
    "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "2\t1\t3\t881250949\n1\t267\t5\t874965758\n1\t2\t4\t874965758\n",
    "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n",
    "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tMisérables, Les (Long)\t1995\tDrama Musical\n"
    "2\tLand Before Time III (1995)\tV\tAnimation Children's\n"
    '3\t"Great" Cats\t1997\tunknown\n'
    "267\tunkonwn\tunkonwn\tunknown\n",
}
GROUPLENS = {
    "u.data": "1\t2\t4\t874965758\n2\t1\t3\t881250949\n1\t267\t5\t874965758\n",
    "u.user": "1|24|M|technician|85711\n2|53|F|other|94043\n",
    "u.item": "".join(
        "|".join([*fields, *("1" if name in genres else "0" for name in GENRES)]) + "\n"
        for fields, genres in [
            (
                ["1", "Misérables, Les (Long) (1995) ", "01-Jan-1995", "", "http://x/?(1995)"],
                {"Drama", "Musical"},
            ),
            (["2", "Land Before Time III (1995) (V)", "", "", ""], {"Children's", "Animation"}),
            (["3", '"Great" Cats (1997)', "04-Feb-1971", "", ""], {"unknown"}),
            (["267", "unknown", "", "", ""], {"unknown"}),
        ]
    ),
}


def write_wheel(folder: Path) -> Path:
    path = folder / "recbole.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for end, text in RECBOLE.items():
            name = f"recbole/dataset_example/ml-100k/ml-100k.{end}"
            archive.writestr(zipfile.ZipInfo(name), text)  # of a fixed date: the same bytes again
    return path


def write_zip(folder: Path) -> Path:
    path = folder / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in GROUPLENS.items():
            archive.writestr(zipfile.ZipInfo(f"ml-100k/{name}"), text.encode("latin-1"))
    return path


def no_network(folder: Path) -> Path:
    raise ConnectionError("no route to host")


def fake_sources(
    tmp_path: Path, *, wheel: Callable[[Path], Path], archive: Callable[[Path], Path]
) -> list[Source]:
    """The two sources with other downloads, and the digests of the files that those would give."""
    samples = tmp_path / "samples"
    samples.mkdir(exist_ok=True)
    first, second = default_sources()
    return [
        replace(first, download=wheel, digest=digest(write_wheel(samples), "sha256")),
        replace(second, download=archive, digest=digest(write_zip(samples), "md5")),
    ]


def digest(path: Path, algorithm: str) -> str:
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


def read(folder: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in TABLES}


def test_both_sources_give_the_same_tables(tmp_path: Path) -> None:
    ours = fake_sources(tmp_path, wheel=write_wheel, archive=write_zip)
    first = read(fetch_movielens_100k(tmp_path / "a", sources=ours[:1]))
    second = read(fetch_movielens_100k(tmp_path / "b", sources=ours[1:]))
    for name in TABLES:
        pd.testing.assert_frame_equal(first[name], second[name])
    assert first["interactions"].to_dict("list") == {
        "user_id": [1, 1, 2],
        "item_id": [2, 267, 1],
        "rating": [4, 5, 3],
        "timestamp": [874965758, 874965758, 881250949],
    }
    assert first["users"].to_dict("list") == {
        "user_id": [1, 2],
        "age": [24, 53],
        "gender": ["M", "F"],
        "occupation": ["technician", "other"],
    }
    items = first["items"]
    assert items["item_id"].tolist() == [1, 2, 3, 267]
    assert items["title"].tolist() == [
        "Misérables, Les (Long)",
        "Land Before Time III",
        '"Great" Cats',
        "unknown",
    ]
    assert items["year"].tolist()[:3] == [1995, 1995, 1997]
    assert items["year"].isna().tolist() == [False, False, False, True]
    assert [list(genres) for genres in items["genres"]] == [
        ["Drama", "Musical"],
        ["Animation", "Children's"],
        [],
        [],
    ]


def test_a_second_call_downloads_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    ours = fake_sources(tmp_path, wheel=write_wheel, archive=no_network)
    folder = fetch_movielens_100k(tmp_path / "cache", say=said.append, sources=ours)
    gone = fake_sources(tmp_path, wheel=no_network, archive=no_network)
    again = fetch_movielens_100k(tmp_path / "cache", say=said.append, sources=gone)
    assert again == folder
    assert said == [f"MovieLens 100k is in {folder}, from the package index (recbole==1.2.1)"] * 2
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_grouplens_comes_second(tmp_path: Path) -> None:
    said: list[str] = []
    ours = fake_sources(tmp_path, wheel=no_network, archive=write_zip)
    folder = fetch_movielens_100k(tmp_path / "cache", say=said.append, sources=ours)
    assert said[0] == "MovieLens 100k: the package index (recbole==1.2.1) cannot be reached"
    assert said[1].startswith(f"MovieLens 100k is in {folder}, from GroupLens (https://")
    assert (folder / "source.txt").read_text().startswith("GroupLens")


def test_no_source_at_all_names_both_and_the_remedy(tmp_path: Path) -> None:
    ours = fake_sources(tmp_path, wheel=no_network, archive=no_network)
    with pytest.raises(DataError) as raised:
        fetch_movielens_100k(tmp_path / "cache", sources=ours)
    message = str(raised.value)
    assert "the package index (recbole==1.2.1): no route to host" in message
    assert "GroupLens (https://files.grouplens.org" in message
    assert "tables of your own" in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_that_is_not_the_original_is_refused(tmp_path: Path) -> None:
    def damaged(folder: Path) -> Path:
        path = folder / "recbole.whl"
        path.write_bytes(b"half of i")
        return path

    ours = fake_sources(tmp_path, wheel=damaged, archive=write_zip)
    with pytest.raises(DataError, match=r"recbole.whl.*expected sha256 .*received .*damaged"):
        fetch_movielens_100k(tmp_path / "cache", sources=ours)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_run_at_the_same_time_may_be_first(tmp_path: Path) -> None:
    ours = fake_sources(tmp_path, wheel=write_wheel, archive=no_network)

    def slow(folder: Path) -> Path:
        fetch_movielens_100k(tmp_path / "cache", sources=ours)
        return write_wheel(folder)

    folder = fetch_movielens_100k(
        tmp_path / "cache", sources=fake_sources(tmp_path, wheel=slow, archive=no_network)
    )
    assert set(read(folder)) == set(TABLES)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_pip_is_called_as_a_user_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> None:
        commands.append(command)
        write_wheel(Path(command[command.index("--dest") + 1]))

    monkeypatch.setattr(subprocess, "run", run)
    assert default_sources()[0].download(tmp_path) == tmp_path / "recbole.whl"
    assert commands[0][1:4] == ["-m", "pip", "download"]
    assert commands[0][-1] == "recbole==1.2.1"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (subprocess.CalledProcessError(1, "pip", stderr="a\nNo matching distribution\n"), "No mat"),
        (subprocess.CalledProcessError(3, "pip", stderr=""), "status 3"),
        (subprocess.TimeoutExpired("pip", 120), "no answer within 120 s"),
    ],
)
def test_pip_that_fails_is_a_source_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(OSError, match=message):
        default_sources()[0].download(tmp_path)


def test_a_zip_out_of_reach_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(url: str, **_: Any) -> None:
        raise urllib.error.URLError(f"no way to {url}")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(OSError, match="no way to https"):
        default_sources()[1].download(tmp_path)


def test_the_zip_is_written_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, **_: io.BytesIO(url.encode()))
    path = default_sources()[1].download(tmp_path)
    assert path.read_text() == "https://files.grouplens.org/datasets/movielens/ml-100k.zip"


def test_a_zip_that_breaks_off_is_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def urlopen(url: str, **_: Any) -> None:
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(OSError, match="the answer broke off"):
        default_sources()[1].download(tmp_path)
