"""Init: look at files, guess what they are, and write the configuration of a first run."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.config import RunConfig, parse_config
from pipelines.data.engines import choose_engine
from pipelines.data.faults.report import read_rejected
from pipelines.data.prepare import prepare
from pipelines.guess.draft import Draft
from pipelines.guess.guess_tables import guess_tables
from pipelines.guess.name_headless import name_headless
from pipelines.guess.read_tables import Table, expand, read_table
from pipelines.guess.write_config import compose
from pipelines.progress import Reporter
from serving.atomic import write_text_atomic
from towers.errors import ConfigError, DataError, RecallError


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """The configuration that was written."""

    path: Path
    draft: Draft
    rejected: tuple[str, ...]
    """Rows at fault, which the configuration sets aside."""
    problem: str | None
    """Why a run would refuse the configuration, if it would."""


def init(
    paths: Sequence[Path], out: Path, *, again: bool = False, reporter: Reporter | None = None
) -> Written:
    """Write the configuration of a first run on some tables to the file `out`.

    The tables are then read and split by it, as a run does; if rows are at fault, it sets them
    aside.

    Raises:
        ConfigError: `out` exists, and is not to be written `again`.
        DataError: there is no table of interactions among the files, or one cannot be read.
    """
    reporter = reporter or Reporter()
    if out.exists() and not again:
        raise ConfigError(f"{out}: exists already; name another file with --out, or give --again")
    tables: list[Table] = []
    left: list[tuple[Path, str]] = []
    with reporter.stage("look at the tables"):
        for path in expand(paths):
            try:
                tables.append(read_table(path))
            except DataError as error:
                if len(paths) == 1 and path == paths[0]:
                    raise
                left.append((path, str(error).removeprefix(f"{path}: ")))
    if not tables:
        raise DataError("\n".join(["expected tables, received none:", *(why for _, why in left)]))
    with reporter.stage("guess"):
        draft = name_headless(guess_tables(tables, left_out=left))
    problem: str | None = None
    rejected: tuple[str, ...] = ()
    with reporter.stage("try the configuration"):
        try:
            rejected = _rejected(compose(draft, config=out), out)
        except RecallError as error:
            problem = str(error)
    write_text_atomic(out, compose(draft, config=out, rejected=rejected))
    return Written(path=out, draft=draft, rejected=rejected, problem=problem)


def _rejected(text: str, out: Path) -> tuple[str, ...]:
    """Read and split the tables as a run would; says which rows are at fault.

    Raises:
        RecallError: a run would refuse the configuration.
    """
    config = parse_config(tomllib.loads(text), folder=out.resolve().parent, where=str(out))
    lenient: RunConfig = dataclasses.replace(
        config, data=dataclasses.replace(config.data, on_bad_rows="quarantine")
    )
    with TemporaryDirectory() as folder:
        plan = choose_engine(config, asked=None, master=None)
        lines = prepare(lenient, Path(folder) / "prepared", plan=plan).lines
    return tuple(
        f"{one.table}: {one.count:,} rejected: {one.reason}" for one in read_rejected(lines)
    )
