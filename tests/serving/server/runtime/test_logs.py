from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from serving.server.runtime.logs import configure
from towers.errors import ConfigError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the logging of the test run as it was."""
    names = ("uvicorn", "asyncio", "h5py", "tensorflow", "matplotlib")
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in names)]
    levels, handlers = [logger.level for logger in loggers], loggers[0].handlers[:]
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_an_event_is_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", format="json")
    logging.getLogger("a.b").info("version loaded", extra={"version": 3, "error": "two\nlines"})
    logging.getLogger("a.b").debug("not this")
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert event.pop("time")
    assert event == {
        "level": "INFO",
        "logger": "a.b",
        "message": "version loaded",
        "version": 3,
        "error": "two\nlines",
    }


def test_text_says_what_the_event_has_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", format="text")
    logging.getLogger("a.b").debug("version loaded", extra={"version": 3})
    assert capsys.readouterr().err.endswith(" DEBUG a.b version loaded version=3\n")


def test_json_is_the_format_where_no_person_looks_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    logging.getLogger("a.b").info("hello")
    assert json.loads(capsys.readouterr().err)["message"] == "hello"


@pytest.mark.parametrize(
    ("level", "format", "message"),
    [("loud", "json", "log level: .*'loud'"), ("info", "xml", "log format: .*'xml'")],
)
def test_unknown_names_are_refused(level: str, format: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(level, format=format)
