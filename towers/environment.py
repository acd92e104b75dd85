"""The environment variables that fm-recall sets and reads, in one place."""

from __future__ import annotations

import os


def prepare() -> None:
    """Select Keras 2 (tensorflow-recommenders needs it) and quiet TensorFlow's start-up log.

    A value that the user has set is kept, except for `TF_USE_LEGACY_KERAS`: with Keras 3
    tensorflow-recommenders 0.7.7 does not import.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def secret(name: str) -> str | None:
    """Read a secret, which has no place on a command line; None where it is not given."""
    return os.environ.get(name) or None
