"""The command `candidates`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main as cli
from tests.pipelines.candidates.job_support import read

pytestmark = pytest.mark.slow


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command in this process; its exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def answer(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fm-recall", "candidates", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return answer


def test_command_writes_and_says_what(models: Path, users: Path, tmp_path: Path, call: Any) -> None:
    out = tmp_path / "out"
    args = [models, "--users", users, "--out", out, "-k", 10, "--channels", "popularity=2,u2i=5"]
    code, text, errors = call(*args, "--where", '{"column": "tags", "equals": "any"}')
    assert (code, errors) == (0, "")
    for part in ("candidates: 61 users", "popularity 120, u2i 480", "rejected", "manifest.json"):
        assert part in text
    frame = read(out)
    assert frame["channel"].tolist()[:10] == ["popularity"] * 2 + ["u2i"] * 8
    code, _, errors = call(*args, "-k", 11)
    assert code == 2
    assert "settings.k: begun with 10, received 11" in errors


def test_command_reads_its_settings_from_a_file(
    models: Path, users: Path, tmp_path: Path, call: Any
) -> None:
    config, out = tmp_path / "candidates.toml", tmp_path / "out"
    config.write_text("k = 5\n")
    assert call(models, "--users", users, "--out", out, "--config", config, "--version", 1)[0] == 0
    assert set(read(out)["version"]) == {1}
    assert len(read(out)) == 60 * 5
    capped = ["--config", config, "--max-per", "tags=2", "--diversity", 0.5]
    assert call(models, "--users", users, "--out", tmp_path / "capped", *capped)[0] == 0
    assert len(read(tmp_path / "capped")) == 60 * 2  # all items have one tag in common
    config.write_text("kk = 5\n")
    code, _, errors = call(models, "--users", users, "--out", tmp_path / "b", "--config", config)
    assert code == 2
    assert "kk: unknown key" in errors
    assert not (tmp_path / "b").exists()
