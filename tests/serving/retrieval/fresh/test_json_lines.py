"""The journal of an earlier release is read once, and kept aside."""

from __future__ import annotations

import json
import logging
import os
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.retrieval.fresh import database
from serving.retrieval.fresh.entry import Entry, list_drafts
from serving.retrieval.fresh.journal import CONVERTED, FILE, OLD, Journal
from serving.retrieval.fresh.json_lines import read_json_lines
from towers.errors import BundleError

TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def line(*changes: dict[str, Any]) -> bytes:
    """What an earlier release wrote for one request."""
    entries = [{"time": TIME.isoformat(), **change} for change in changes]
    body = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    return b'{"crc32":"%08x","entries":%s}\n' % (zlib.crc32(body), body)


def put(seq: int, id: int | str, **values: Any) -> dict[str, Any]:
    record = {"item_id": id, **values}
    return {"seq": seq, "side": "item", "op": "upsert", "id": id, "record": record}


LINES = [
    line(put(1, "a", price=1.5), put(2, "b\n\u2028")),
    line({"seq": 3, "side": "user", "op": "delete", "id": 2**62}),
    line(put(4, "a", price=2, genres=["x", "ü"])),
]
EXPECTED = [
    Entry(seq=2, time=TIME, side="item", id="b\n\u2028", record={"item_id": "b\n\u2028"}),
    Entry(seq=3, time=TIME, side="user", id=2**62, record=None),
    Entry(
        seq=4,
        time=TIME,
        side="item",
        id="a",
        record={"item_id": "a", "price": 2, "genres": ["x", "ü"]},
    ),
]


def entries(folder: Path) -> list[Entry]:
    with Journal(folder) as journal:
        return journal.entries()


def test_it_is_converted_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / OLD).write_bytes(b"".join(LINES))
    with caplog.at_level(logging.WARNING):
        assert entries(tmp_path) == EXPECTED
    assert f"{tmp_path / OLD}: converted to {FILE}, and kept as {CONVERTED}" in caplog.text
    assert (tmp_path / CONVERTED).read_bytes() == b"".join(LINES)
    assert not (tmp_path / OLD).exists()
    with Journal(tmp_path) as journal:
        assert journal.append([list_drafts("item", id_column="id", upsert=[{"id": "new"}])]) == [5]
    assert entries(tmp_path)[:3] == EXPECTED


@pytest.mark.parametrize("step", ["create", "rename"])
def test_a_conversion_that_is_cut_short_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / OLD).write_bytes(b"".join(LINES))
    (tmp_path / f"{FILE}.new").write_bytes(b"half of a database")
    (tmp_path / f"{FILE}.new-journal").write_bytes(b"half of its journal")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        if step == "create":
            patched.setattr(database, "create", stop)
        else:
            patched.setattr(Journal, "_put_aside", stop)
        Journal(tmp_path)
    assert (tmp_path / OLD).exists()
    assert entries(tmp_path) == EXPECTED
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {FILE, CONVERTED, ".lock"}


def test_what_an_earlier_release_wrote_after_the_conversion_is_not_passed_over(
    tmp_path: Path,
) -> None:
    (tmp_path / OLD).write_bytes(b"".join(LINES))
    entries(tmp_path)
    (tmp_path / OLD).write_bytes(line(put(1, "later")))
    with pytest.raises(BundleError, match="an earlier release has written others"):
        Journal(tmp_path)
    (tmp_path / OLD).unlink()
    assert entries(tmp_path) == EXPECTED


@given(cut=st.integers(min_value=1))
def test_a_torn_last_line_is_left_out_with_a_warning(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    kept, last = b"".join(LINES[:2]), len(LINES[2])
    (folder / OLD).write_bytes(kept + LINES[2])
    os.truncate(folder / OLD, len(kept) + cut % last)
    found = read_json_lines(folder / OLD)
    assert [entry.id for entry in found] == ["a", "b\n\u2028", 2**62]


def test_the_warning_names_file_and_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / OLD).write_bytes(LINES[0] + b"\0" * 100)
    with caplog.at_level(logging.WARNING):
        entries(tmp_path)
    assert f"{tmp_path / OLD}: line 2: the server stopped while it wrote this change" in caplog.text


@given(where=st.integers(min_value=0), flip=st.integers(1, 255))
@example(where=len(LINES[0] + LINES[1]) - 1, flip=1)  # it joins the last two lines
@example(where=len(b"".join(LINES)) - 1, flip=1)  # the last line ends otherwise; it is not torn
def test_damage_is_refused(where: int, flip: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    raw = bytearray(b"".join(LINES))
    raw[where % len(raw)] ^= flip
    (folder / OLD).write_bytes(raw)
    with pytest.raises(BundleError, match=r"fresh\.jsonl: line \d: damaged: .*; restore the file"):
        read_json_lines(folder / OLD)


def test_a_damaged_one_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / OLD).write_bytes(b"damaged\n" + LINES[0])
    with pytest.raises(BundleError, match="line 1: damaged"):
        Journal(tmp_path)
    assert not (tmp_path / FILE).exists()
    (tmp_path / OLD).unlink()
    Journal(tmp_path).close()  # the lock is free again
