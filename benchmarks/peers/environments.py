"""A virtual environment for each peer, made when it is first needed."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from benchmarks.peers.processes import PeerError, run_logged
from pipelines.progress import Reporter

REQUIREMENTS = Path(__file__).parent / "requirements"
"""Every package of an environment, with its version."""
READY = "ready"
"""The file in an environment that says it is whole: the digest of what it was made from."""


def ensure_environment(name: str, *, folder: Path, reporter: Reporter) -> Path:
    """Make the environment `name` in `folder` unless it is there; the path of its Python.

    One that was interrupted, or was made from other requirements, is made again.

    Raises:
        PeerError: it cannot be made.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    python, ready = folder / "bin" / "python", folder / READY
    digest = _digest(requirements)
    if ready.exists() and ready.read_text(encoding="utf-8") == digest:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with reporter.stage(f"make the environment {folder} from {requirements.name}"):
        try:
            _make(folder, requirements=requirements)
        except PeerError as error:
            raise PeerError(
                f"{folder}: the environment cannot be made from {requirements}\n{error}\n"
                "pip needs a package index that it can reach, with wheels for this Python "
                f"({sys.version.split()[0]}); mend that, and the same command starts anew"
            ) from None
    ready.write_text(digest, encoding="utf-8")
    return python


def _make(folder: Path, *, requirements: Path) -> None:
    """Make an environment in the empty folder `folder`, and install the requirements."""
    run_logged([sys.executable, "-m", "venv", str(folder)], log=folder / "venv.log")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    run_logged([*pip, "install", "--requirement", str(requirements)], log=folder / "pip.log")


def _digest(requirements: Path) -> str:
    """A digest of everything that an environment is made from."""
    return hashlib.sha256(sys.version.encode() + requirements.read_bytes()).hexdigest()
