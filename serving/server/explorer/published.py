"""What is known of the versions of a models directory: their figures and their reports."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from serving.server.errors import ConflictError, NotFoundError
from serving.server.explorer.models import VersionFigures
from serving.version.manifest import Manifest
from serving.version.store import Store
from towers.errors import BundleError

LOG = logging.getLogger(__name__)

MOST_VERSIONS = 100
"""Versions in one answer."""


def list_versions(models: Path, *, current: int) -> list[VersionFigures]:
    """List the newest versions, the newest first; `current` is the one that answers."""
    store = Store(models)
    numbers = sorted(store.versions(), reverse=True)[:MOST_VERSIONS]
    return [_describe(store, number, is_current=number == current) for number in numbers]


def read_report(models: Path, version: int) -> str:
    """Read the HTML report of a version.

    Raises:
        NotFoundError: there is no such version, or it has no report.
        ConflictError: the report is not as it was published.
    """
    try:
        bundle = Store(models).open(version, verify=False)
        report = bundle.report.read_text(encoding="utf-8")
        try:
            bundle.verify_file(bundle.report)
        except BundleError as error:
            LOG.error("report damaged", extra={"version": version, "error": str(error)})
            raise ConflictError(
                f"version {version}: its report is damaged; the server's log says how"
            ) from None
        return report
    except (BundleError, OSError, UnicodeDecodeError):
        raise NotFoundError(
            f"version: expected one that has a report, received {version}; see "
            "/v1/explorer/versions"
        ) from None


def _describe(store: Store, version: int, *, is_current: bool) -> VersionFigures:
    try:
        bundle = store.open(version, verify=False)
    except BundleError:
        return VersionFigures(version=version, is_current=is_current, readable=False)
    manifest = bundle.manifest
    return VersionFigures(
        version=version,
        is_current=is_current,
        readable=True,
        name=manifest.name,
        created=manifest.created,
        parent_version=manifest.parent_version,
        mined_with=(manifest.mined or {}).get("version"),
        index=str(manifest.index.get("kind", "")),
        figures=_figures(manifest),
        has_report=bundle.report.is_file(),
    )


def _figures(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """The figures of each segment of users, with how many users it has."""
    segments = manifest.metrics.get("segments", {})
    return {
        name: {"users": segment.get("n_users"), **segment["figures"]}
        for name, segment in segments.items()
    }
