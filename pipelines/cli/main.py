"""The command line. TensorFlow is imported by the commands that need it, so that help is quick."""

from __future__ import annotations

import sys

import typer

from pipelines.cli.candidates import candidates
from pipelines.cli.exits import BAD_INPUT, FAILED, fail, full_disk
from pipelines.cli.init import check, init
from pipelines.cli.measure import evaluate
from pipelines.cli.publish import publish
from pipelines.cli.query import explain, query
from pipelines.cli.rank import rank
from pipelines.cli.refresh import refresh
from pipelines.cli.serve import serve
from pipelines.cli.train import demo, run, tune
from pipelines.cli.versions import clean, compare, export, rollback, versions
from towers.errors import EngineError, RecallError, StorageError

app = typer.Typer(
    name="fm-recall",
    help="Candidate generation with a factorization machine rewritten as two towers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    *(init, check, run, rank, tune, demo),
    *(query, explain),
    *(versions, rollback, clean, evaluate, compare, export),
    *(serve, candidates, publish, refresh),
):
    app.command()(command)


def main() -> None:
    """Run a command; what goes wrong is one clear message, and exit code 2 for bad input."""
    try:
        app()
    except RecallError as error:
        is_system = isinstance(error, (EngineError, StorageError))
        sys.exit(fail(str(error), code=FAILED if is_system else BAD_INPUT))
    except Exception as error:
        if (line := full_disk(error)) is not None:
            sys.exit(fail(line, code=FAILED))
        if isinstance(error, OSError):
            sys.exit(fail(f"{error.filename or 'system'}: {error.strerror}", code=FAILED))
        raise
