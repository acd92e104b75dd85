"""Manifest: what a published version is, where it came from, and the checksum of each file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from serving.version.signature import SIGNATURE, check_signature
from towers.errors import BundleError, ConfigError
from towers.features.kinds import Features
from towers.features.schema import Schema, Side
from towers.typed import STRICT, parse

FORMAT = 3
"""The layout of a bundle that this release writes, and the newest that it reads.

Since 2, the records of `users.parquet` and `items.parquet` are nested, beside the vectors. Since 3,
the manifest says when the tables were read."""

MANIFEST = "manifest.json"
"""The name of the manifest in a bundle; the last file written."""

PACKAGES = ("tensorflow", "tf_keras", "tensorflow-recommenders", "scann", "numpy", "fm-recall")
"""The distributions whose versions a manifest records."""

REMEDY = "publish again, or roll back to another version"
"""What to do about a manifest that cannot be used."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Provenance:
    """What the run that made a version says about it; every value is plain JSON.

    Raises:
        BundleError: a value cannot be written as JSON, such as a NumPy number or NaN.
    """

    name: str
    """The run's name, as in its configuration."""
    schema_fingerprint: str
    """`Schema.fingerprint()` of the features that the towers read."""
    config: dict[str, Any]
    """The whole run configuration."""
    parent_version: PositiveInt | None
    """The version that training continued from or mined with, if any."""
    mined: dict[str, Any] | None
    """Where the hard negatives came from: `version`, `ranks`, `queries`; None in round 0."""
    index: dict[str, Any]
    """Kind and settings of the index of each direction, with the recall that it reached."""
    metrics: dict[str, Any]
    """The evaluation's figures."""
    tables_read: str | None = None
    """When the tables were read: ISO 8601, UTC; None where that is not known. What had been changed
    of fresh users and items by then is in `tables_read.json`."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(Provenance):
            try:
                json.dumps(getattr(self, field.name), allow_nan=False)
            except (TypeError, ValueError) as error:
                raise BundleError(
                    f"{MANIFEST}: {field.name}: expected plain JSON values, received one that is "
                    f"not ({error}); convert it, and give None for a figure that does not exist"
                ) from None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FileRecord:
    """The checksum (hex) and the size of a file."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: NonNegativeInt

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Read the file at `path`, in pieces, and record it."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(sha256=digest, bytes=file.tell())


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Manifest(Provenance):
    """Everything that a version says about itself."""

    version: PositiveInt
    created: str
    """When the version was published: ISO 8601, UTC."""
    packages: dict[str, str]
    """Versions of Python and of the packages that made the SavedModels."""
    files: dict[str, FileRecord]
    """Every file but the manifest, by its relative POSIX path."""
    format: PositiveInt
    """The layout of the bundle; see `FORMAT`."""

    @property
    def schema(self) -> Schema:
        """The features that the towers read, by the run's configuration.

        Raises:
            BundleError: it is not one that this release knows.
        """
        try:
            data = self.config["data"]
            ids = {
                f"{side}_id": (data.get(f"{side}s") or {}).get("id") or data["interactions"][side]
                for side in ("user", "item")
            }
            features = {
                side: parse(Features, given, where=f"{MANIFEST}: config.{side}")
                for side in ("user", "item", "context")
                if (given := self.config.get(side)) is not None
            }
            return Schema.of(
                **ids,
                user=features.get("user"),
                item=features.get("item"),
                context=features.get("context"),
            )
        except (ConfigError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"{MANIFEST}: expected the features of a run in `config`, received {error}; "
                f"{REMEDY}"
            ) from None

    def null_values(self, side: Side) -> frozenset[str]:
        """The texts that meant a missing value in the table of users or items."""
        table = self.config.get("data", {}).get(f"{side}s") or {}
        return frozenset(table.get("null_values", ()))

    @property
    def unseen_behaviours(self) -> frozenset[str]:
        """The behaviours by which an item does not count as seen."""
        behaviours = self.config.get("data", {}).get("behaviours") or {}
        return frozenset(name for name, one in behaviours.items() if not one.get("seen", True))

    @classmethod
    def of(cls, folder: Path, provenance: Provenance, *, version: int) -> Manifest:
        """Describe the files in `folder` as `version`, made now by the packages installed here.

        Raises:
            BundleError: `folder` holds a link or another thing that is not a plain file.
        """
        files = list_files(folder)
        odd = sorted(name for name, path in files.items() if not is_plain(path))
        if odd:
            raise BundleError(
                f"{folder}: expected plain files only, received {odd}; a bundle stands on its own, "
                "so copy what a link points to"
            )
        records = {name: FileRecord.of(path) for name, path in sorted(files.items())}
        return dataclasses.replace(cls.unfinished(provenance, version=version), files=records)

    @classmethod
    def unfinished(cls, provenance: Provenance, *, version: int) -> Manifest:
        """Describe a version whose files are not all there yet, made now by these packages."""
        return cls(
            **dataclasses.asdict(provenance),
            version=version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            packages=installed_packages(),
            files={},
            format=FORMAT,
        )

    def to_json(self) -> str:
        """The text of the manifest, which ends with its own checksum."""
        body = {"format": self.format, "version": self.version} | dataclasses.asdict(self)
        return json.dumps(body | {"sha256": _checksum(body)}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str) -> Manifest:
        """Read the text that `to_json` wrote.

        Raises:
            BundleError: it is not whole, has an unknown, missing or wrong key, differs from its
                own checksum, or has a format that this release cannot read. The message starts
                with `where`.
        """
        try:
            body = json.loads(text)
        except json.JSONDecodeError as error:
            raise BundleError(f"{where}: truncated or damaged: {error}; {REMEDY}") from None
        if not isinstance(body, dict):
            raise BundleError(f"{where}: damaged: expected a JSON object; {REMEDY}")
        if isinstance(body.get("format"), int) and body["format"] > FORMAT:
            raise BundleError(
                f"{where}: expected a format of at most {FORMAT}, received {body['format']}, which "
                "a newer release wrote; upgrade fm-recall"
            )
        recorded = body.pop("sha256", None)
        try:
            manifest = parse(cls, body, where=where)
        except ConfigError as error:
            raise BundleError(f"{error}\n{REMEDY}") from None
        received = _checksum(body)
        if received != recorded:
            raise BundleError(
                f"{where}: damaged: expected sha256 {recorded}, received {received}; {REMEDY}"
            )
        return manifest

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the manifest at `path`.

        Raises:
            BundleError: as `from_json`, or there is no such file, or not the signature that the
                environment asks for.
        """
        try:
            content = path.read_bytes()
            text = content.decode()
        except FileNotFoundError:
            raise BundleError(f"{path}: missing, so this is no whole bundle; {REMEDY}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{path}: damaged: {error}; {REMEDY}") from None
        check_signature(path, content)
        return cls.from_json(text, where=str(path))


def installed_packages() -> dict[str, str]:
    """Versions of Python and of those of `PACKAGES` that are installed, none of them imported."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def list_files(folder: Path) -> dict[str, Path]:
    """All below `folder` but folders, the manifest and its signature, by relative POSIX path."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    files = {path.relative_to(folder).as_posix(): path for path in found}
    files.pop(MANIFEST, None)
    files.pop(SIGNATURE, None)
    return files


def is_plain(path: Path) -> bool:
    """Whether `path` is a file itself rather than a link to one, a socket or the like."""
    return path.is_file() and not path.is_symlink()


def _checksum(body: dict[str, Any]) -> str:
    """The sha256 (hex) of a manifest's fields, in their order."""
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
