"""Write requirements.txt: what the image installs, with the SHA-256 of each wheel, on Linux.

Run: make hashes
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = "3.11"
GLIBC = (17, 24, 26, 27, 28, 31)
"""The minor versions of glibc 2 that wheels are for."""
MACHINES = ("x86_64", "aarch64")
HEADER = "# Versions of constraints.txt, with the SHA-256 of wheels. To renew: make hashes\n"


def hashes(dependencies: list[str], machine: str) -> dict[str, str]:
    """Ask pip which wheel it would install on a machine; the SHA-256 of each `name==version`."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC] + [f"manylinux2014_{machine}"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet"]
        command += ["--ignore-installed", "--only-binary=:all:", "--python-version", PYTHON]
        command += [f"--platform={platform}" for platform in platforms]
        command += ["--target", folder, "--report", str(report)]
        command += ["--constraint", str(ROOT / "constraints.txt"), *dependencies]
        subprocess.run(command, check=True)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = {}
    for one in installed:
        name = re.sub(r"[-_.]+", "-", one["metadata"]["name"]).lower()
        archive = one["download_info"]["archive_info"]
        found[f"{name}=={one['metadata']['version']}"] = archive["hashes"]["sha256"]
    return found


def main() -> None:
    """Write the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    digests: dict[str, set[str]] = defaultdict(set)
    for machine in MACHINES:
        for pin, digest in hashes(project["dependencies"], machine).items():
            digests[pin].add(digest)
    lines = [
        f"{pin} " + " ".join(f"--hash=sha256:{digest}" for digest in sorted(digests[pin]))
        for pin in sorted(digests)
    ]
    (HERE / "requirements.txt").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
