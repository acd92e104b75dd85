"""TablesRead: when the tables of a version were read, and which changes had been made by then."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from serving.atomic import write_text_atomic
from towers.errors import BundleError

TABLES_READ = "tables_read.json"
"""Its file in a bundle, and in the folder of a run."""


@dataclass(frozen=True, kw_only=True)
class TablesRead:
    """What the servers' journals held just before the tables were read.

    It names each change by its content (`Entry.fingerprint`). So no clock is compared, and a
    journal that was removed, restored from a copy or moved is not taken for another.
    """

    time: str
    """When that was: ISO 8601, UTC; to be read by people."""
    changes: frozenset[str] = frozenset()
    """The fingerprints of the changes that the tables may know of."""

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        body = {"time": self.time, "changes": sorted(self.changes)}
        write_text_atomic(path, json.dumps(body) + "\n")

    @classmethod
    def read(cls, path: Path) -> TablesRead | None:
        """Read what `write` wrote; None where it is not known when the tables were read.

        Raises:
            BundleError: the file is damaged.
        """
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            return cls(time=body["time"], changes=frozenset(body["changes"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path}: damaged: {error}; publish again") from None
