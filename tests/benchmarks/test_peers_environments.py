from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.environments import ensure_environment
from benchmarks.peers.processes import PeerError
from pipelines.progress import Reporter


def make_environments(monkeypatch: pytest.MonkeyPatch, *, failing: bool = False) -> list[Path]:
    """Make folders that only look like environments; the list grows with each that is made."""
    made: list[Path] = []

    def make(folder: Path, *, requirements: Path) -> None:
        assert list(folder.iterdir()) == []
        made.append(folder)
        (folder / "half-made").touch()
        if failing:
            raise PeerError("pip: no index")

    monkeypatch.setattr(environments, "_make", make)
    return made


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_environments(monkeypatch)
    for _ in range(2):
        python = ensure_environment("implicit", folder=tmp_path / "env", reporter=Reporter())
    assert python == tmp_path / "env" / "bin" / "python"
    assert made == [tmp_path / "env"]


def test_a_half_made_environment_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        make_environments(patch, failing=True)
        with pytest.raises(
            PeerError, match=r"(?s)env: .*implicit\.txt.*pip: no index.*starts anew"
        ):
            ensure_environment("implicit", folder=tmp_path / "env", reporter=Reporter())
    made = make_environments(monkeypatch)
    ensure_environment("implicit", folder=tmp_path / "env", reporter=Reporter())
    assert made == [tmp_path / "env"]


def test_an_environment_of_other_requirements_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_environments(monkeypatch)
    for name in ("implicit", "lightfm"):
        ensure_environment(name, folder=tmp_path / "env", reporter=Reporter())
    assert len(made) == 2
