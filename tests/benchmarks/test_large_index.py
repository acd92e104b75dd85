from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import large_index
from benchmarks.large_index import Files, make_files, table
from benchmarks.own_process import answer, folder_gib, peak_gib, resident_gib


def test_the_exact_neighbours_are_made_once_with_their_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_index, "CHUNK", 300)
    files = Files(tmp_path / "small")
    make_files(files, n=1000)
    vectors = files.vectors()
    assert vectors.shape == (1000, 65)
    for half in (0, 1):
        queries, (rows, scores) = files.queries(half=half)
        expected = np.sort(queries @ vectors.T, axis=1)[:, : -scores.shape[1] - 1 : -1]
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            np.einsum("qd,qkd->qk", queries, vectors[rows]), scores, rtol=1e-4, atol=1e-5
        )
    (files.root / "vectors.npy").unlink()
    make_files(files, n=1000)
    assert not (files.root / "vectors.npy").exists()


def test_the_table_has_a_line_a_storage() -> None:
    figures = {"recall": 0.961, "rate": 1e4, "p50_ms": 0.1, "off": 0.0}
    step: dict[str, Any] = {
        "build": {"leaves": "20", "searched": 5, "reordered": 400}
        | {"build_s": 1, "build_peak_gib": 1, "disk_gib": 1},
        "search": {"load_s": 1, "memory_gib": 1} | figures,
        "save_model": {"disk_gib": 1},
        "load_model": dict.fromkeys(
            ("load_s", "first_s", "memory_gib", "recall", "rate", "p50_ms"), 1.0
        ),
    }
    lines = list(table({"int8": step, "float32": step}))
    assert "| int8 | 5, 400 | 0.961 | 10,000 | 0.10 | 0.0000 |" in lines
    assert sum(line.startswith("| float32 |") for line in lines) == 3


def test_a_process_knows_its_memory_and_says_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(2**20))
    assert folder_gib(tmp_path) == 2**-10
    assert 0 < resident_gib() <= peak_gib()
    answer(seconds=1.5, name="x")
    assert json.loads(capsys.readouterr().out) == {"seconds": 1.5, "name": "x"}
