"""The exceptions a user can cause. Every message says what, where, expected, received, remedy."""

from __future__ import annotations


class RecallError(Exception):
    """Base of every error that fm-recall raises on purpose."""


class ConfigError(RecallError):
    """A configuration or schema that cannot be used."""


class DataError(RecallError):
    """Input rows that break the rules of their table."""


class QueryError(RecallError):
    """A query that names an unknown id, feature or direction."""


class UnknownIdError(QueryError):
    """A query for a user or an item that the version does not have."""


class BundleError(RecallError):
    """A published version that is missing, damaged or incompatible."""


class RecallGateError(RecallError):
    """An index that does not find enough of the exact neighbours to be published."""


class EngineError(RecallError):
    """A job that an engine outside, such as Spark, gave up."""


class TrainingError(RecallError):
    """A training run that cannot go on."""


class ReadOnlyError(RecallError):
    """A change of what is only to be read."""


class StorageError(RecallError):
    """What could not be written: the disk is full, or it fails."""


class IndexUnavailableError(RecallError):
    """An index on another machine that is not there, or does not answer in time."""
