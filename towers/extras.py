"""Packages that only some tasks need: extras of the distribution, which may not be installed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from towers.errors import ConfigError


def import_extra(module: str, *, extra: str, task: str) -> ModuleType:
    """Import a module of an extra.

    Args:
        module: the module's name, and that of its package.
        extra: the extra of fm-recall that brings it.
        task: what needs it, for the message.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise missing(error.name or module, extra=extra, task=task) from None


def missing(module: str, *, extra: str, task: str) -> ConfigError:
    """Make the error that says which package is missing, and how to install it."""
    package = module.partition(".")[0]
    return ConfigError(
        f"{task}: expected the package {package}, which is not installed; install the extra: "
        f"pip install 'fm-recall[{extra}]'"
    )
