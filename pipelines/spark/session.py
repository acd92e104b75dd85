"""A Spark session: whether Spark can run here, its start and its end."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from towers.errors import ConfigError
from towers.extras import missing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA = 17
"""The oldest Java that Spark 4 runs on."""

INSTALL_JAVA = (
    f"install Java {JAVA} or later (on Debian: apt-get install openjdk-{JAVA}-jre-headless), or "
    "name its folder in JAVA_HOME"
)

JAVA_FRAME = re.compile(r"[\w.$/<>]+\([\w ]+(\.java|\.scala)?(:\d+)?\)$")
"""A frame of a Java stack trace in a line without indentation."""

N_LINES = 8
"""The most lines of an error of Spark that are shown; the log of Spark has all of them."""


@contextmanager
def open_session(master: str | None) -> Iterator[SparkSession]:
    """Start Spark, or connect to a cluster, until the block ends.

    All other settings are those of Spark: spark-defaults.conf in the folder that SPARK_CONF_DIR
    names. Workers run this Python, unless PYSPARK_PYTHON names another.

    Args:
        master: the URL of a cluster, or local[n]; None leaves it to Spark's own configuration.

    Raises:
        ConfigError: Spark cannot start, or does not reach the cluster.
    """
    check_spark()
    from py4j.protocol import Py4JError  # noqa: PLC0415 - an extra
    from pyspark.errors import PySparkException  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("fm-recall")
    builder = builder.config("spark.ui.showConsoleProgress", "false")  # the reporter shows progress
    if master is not None:
        builder = builder.master(master)
    try:
        session = builder.getOrCreate()
    except (Py4JError, PySparkException) as error:
        raise ConfigError(
            f"Spark: expected a cluster at --master {master}, received: {first_lines(error)}\n"
            "Check the URL (spark://HOST:PORT, yarn, k8s://..., local[2]) and that it answers"
        ) from None
    try:
        yield session
    finally:
        session.stop()


def check_spark() -> None:
    """Check that PySpark and a Java for it are here.

    Raises:
        ConfigError: one is missing, or Java is too old.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise missing("pyspark", extra="spark", task="Spark")
    java = find_java()
    if java is None:
        raise ConfigError(
            f"Spark: expected Java {JAVA} or later, found no command java; {INSTALL_JAVA}"
        )
    found = java_version(java)
    if found is None or found < JAVA:
        said = "one that does not say its version" if found is None else f"Java {found}"
        raise ConfigError(
            f"Spark: expected Java {JAVA} or later, found {said} at {java}; {INSTALL_JAVA}"
        )


def find_java() -> str | None:
    """The path of the java that Spark runs: in JAVA_HOME or, without it, in PATH."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")


def java_version(java: str) -> int | None:
    """The major version of a Java, such as 8, 11 or 17; None where it says none."""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    return None if found is None else int(found[1])


def first_lines(error: Exception) -> str:
    """The first lines of an error of Java or of a worker, without stack frames."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line[0].isspace() and not JAVA_FRAME.match(line)]
    return "\n".join(told[:N_LINES])
