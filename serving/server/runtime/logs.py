"""Logs: one line an event, for a person or for a program to read."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from pythonjsonlogger.json import JsonFormatter

from serving.server.observing.requests import ACCESS, AddRequest
from towers.errors import ConfigError

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class _TextFormatter(logging.Formatter):
    """The message, followed by what the event has to say as `name=value`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides
        extras = [f"{name}={value}" for name, value in vars(record).items() if name not in _OWN]
        return " ".join([super().formatMessage(record), *extras])


def configure(level: str, *, format: str | None = None) -> None:
    """Write the log of this process to standard error, and nothing else that logs there.

    Args:
        level: one of `LEVELS`; with debug there is a line a request.
        format: one of `FORMATS`; by default text on a terminal, JSON elsewhere.

    Raises:
        ConfigError: there is no such level or format.
    """
    if format is None:
        format = "text" if sys.stderr.isatty() else "json"
    _check("log level", level, LEVELS)
    _check("log format", format, FORMATS)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            FIELDS, rename_fields={"asctime": "time", "levelname": "level", "name": "logger"}
        )
        if format == "json"
        else _TextFormatter(FIELDS)
    )
    handler.addFilter(AddRequest())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    ACCESS.setLevel(logging.INFO)  # it is asked for by an option of its own
    if level != "debug":
        # Its INFO repeats what the server says itself.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    for name in ("asyncio", "h5py", "tensorflow", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _check(option: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise ConfigError(f"{option}: expected one of {list(choices)}, received {given!r}")
