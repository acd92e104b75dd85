"""Whether Spark can run here is said before it starts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from pipelines.spark.session import check_spark, find_java, first_lines, java_version
from towers.errors import ConfigError


def fake_java(folder: Path, said: str, *, code: int = 0) -> Path:
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def pyspark_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_401"', 8),
        ('openjdk version "11.0.22" 2024-01-16', 11),
        ("Unable to locate a Java Runtime", None),
    ],
)
def test_version_of_java(tmp_path: Path, said: str, version: int | None) -> None:
    assert java_version(str(fake_java(tmp_path, said))) == version


@pytest.mark.usefixtures("pyspark_is_here")
def test_java_of_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = fake_java(tmp_path / "new", 'openjdk version "17.0.1"')
    old = fake_java(tmp_path / "old", 'openjdk version "11.0.22"')
    monkeypatch.setenv("PATH", str(new.parent))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert find_java() == str(new)
    check_spark()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    assert find_java() == str(old)
    with pytest.raises(ConfigError, match=r"expected Java 17 or later, found Java 11 at .*old/bin"):
        check_spark()


@pytest.mark.usefixtures("pyspark_is_here")
def test_java_that_is_missing_or_silent_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"found no command java; install Java 17 .*JAVA_HOME"):
        check_spark()
    fake_java(tmp_path, "no runtime", code=1)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="found one that does not say its version"):
        check_spark()


def test_missing_pyspark_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fm-recall\[spark\]'"):
        check_spark()


def test_frames_of_a_stack_are_left_out() -> None:
    lines = [
        *("Job aborted.", "\tat org.apache.A(A.scala:1)", "org.apache.B.<init>(B.java:59)", ""),
        *("Traceback (most recent call last):", '  File "a.py", line 1', "OSError: full disk (28)"),
    ]
    kept = ["Job aborted.", "Traceback (most recent call last):", "OSError: full disk (28)"]
    assert first_lines(ValueError("\n".join(lines))) == "\n".join(kept)
