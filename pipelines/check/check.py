"""Check: read, validate and split the tables of a configuration, and report, without training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.check.describe import describe
from pipelines.check.estimate import estimate
from pipelines.check.warn import warn
from pipelines.config import load_config
from pipelines.data.engines import choose_engine
from pipelines.data.prepare import prepare
from pipelines.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check found; plain values, ready for JSON."""

    config: str
    """The path of the configuration."""
    lines: list[str]
    """What became of the rows of each table."""
    counts: dict[str, int]
    """Users, items, and interactions by part."""
    described: dict[str, Any]
    """See `describe`."""
    estimate: dict[str, Any]
    """See `estimate`."""
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """It as plain values."""
        return asdict(self)


def check(
    path: Path,
    *,
    reporter: Reporter | None = None,
    engine: str | None = None,
    master: str | None = None,
) -> Checked:
    """Check a configuration and its tables.

    Args:
        path: the TOML file.
        reporter: shows progress; silent by default.
        engine: where the tables are read; see `run`.
        master: the URL of a Spark cluster.

    Raises:
        ConfigError: the configuration is wrong, or does not fit the tables.
        DataError: a table cannot be read, rows are at fault, or too little is left.
    """
    config = load_config(path)
    plan = choose_engine(config, asked=engine, master=master)
    with TemporaryDirectory() as folder:
        prepared = prepare(config, Path(folder) / "prepared", plan=plan, reporter=reporter)
        described = describe(prepared, cold_below=config.evaluation.cold_item_interactions)
        return Checked(
            config=str(path),
            lines=list(prepared.lines),
            counts=prepared.counts,
            described=described,
            estimate=estimate(config, prepared),
            warnings=warn(config, prepared, described),
        )
