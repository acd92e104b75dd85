"""Store: the models directory, where versions are published, made current and rolled back.

    ROOT/
      versions/3/                one bundle; renamed into place whole, never touched afterwards
      models/u2i/3 -> ../../versions/3/models/u2i/3     what TF Serving polls
      current -> versions/3      the version that answers queries
      models.config ...          TF Serving's configuration; see `serving.version.deployment`
      .staging-4/                a bundle being written; `.staging-4.lock` keeps its number for it
      .lock                      held while a number is taken or the current version is switched

Readers take no lock and need no permission to write.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from serving.atomic import locked, move_directory, symlink_atomic, sync, write_text_atomic
from serving.version.bundle import Bundle, list_versions, parse_version
from serving.version.deployment import write_configs
from serving.version.manifest import MANIFEST, Manifest, Provenance
from serving.version.signature import sign
from towers.errors import BundleError

STAGING = ".staging-"


class Store:
    """The versions below one models directory."""

    def __init__(self, root: Path) -> None:
        """Take `root` as the models directory; the first `staging` makes it if need be."""
        self.root = root

    def versions(self) -> list[int]:
        """The published versions, in order."""
        return list_versions(self.root / "versions")

    def current(self) -> int | None:
        """The version that answers queries; None before the first `activate`.

        Raises:
            BundleError: `current` is not a link to a version.
        """
        link = self.root / "current"
        try:
            target = link.readlink()
        except FileNotFoundError:
            return None
        except OSError:
            target = None
        version = parse_version(target.name) if target else None
        if version is None or target != _folder_of(version):
            raise BundleError(
                f"{link}: expected a link to a version, received {target or 'something else'}; "
                "remove it and activate a version again"
            )
        return version

    def next_version(self) -> int:
        """The number that the next `staging` takes: above every version published or staged."""
        staged = [parse_version(_staged_name(path)) or 0 for path in self._staged()]
        return max([*self.versions(), *staged, self.current() or 0]) + 1

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a folder in which to write the next version, and remove it unless published.

        `version_of` says which number it was given; nobody else gets that number while the
        block runs. What a killed process left behind is removed first.
        """
        (self.root / "versions").mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            with locked(self.root / ".lock"):
                self._remove_abandoned()
                staged = self.root / f"{STAGING}{self.next_version()}"
                held.enter_context(locked(_lock_of(staged)))
                staged.mkdir()
            try:
                yield staged
            finally:
                if staged.exists():
                    shutil.rmtree(staged)
                _lock_of(staged).unlink(missing_ok=True)

    def version_of(self, staged: Path) -> int:
        """The number of the version that is being written in the folder `staged`.

        Raises:
            BundleError: the folder is not from this store's `staging`.
        """
        version = parse_version(_staged_name(staged))
        if version is None or staged not in self._staged():
            raise BundleError(
                f"{staged}: expected a folder from staging() of {self.root}; publish inside the "
                "`with` block that made it"
            )
        return version

    def publish(
        self,
        staged: Path,
        provenance: Provenance,
        *,
        check: Callable[[Bundle], object] | None = None,
    ) -> Bundle:
        """Write the manifest of a staged version and rename it into place, all of it or nothing.

        The version becomes current by `activate` only.

        Args:
            staged: the folder, from `staging`.
            provenance: what the run says of the version.
            check: is given the staged version, once every file of it was found to be as the
                manifest says; what it raises keeps the version from being published.

        Raises:
            BundleError: the folder is not from `staging`, holds what is no plain file, or the
                version exists already; or `check` refuses it.
        """
        version = self.version_of(staged)
        target = self.root / _folder_of(version)
        if target.exists():
            raise BundleError(
                f"{target}: expected no such version yet, but it exists; stage and publish again"
            )
        manifest = Manifest.of(staged, provenance, version=version)
        write_text_atomic(staged / MANIFEST, manifest.to_json())
        sign(staged / MANIFEST)
        if check is not None:
            check(Bundle.read(staged))
        move_directory(staged, target)
        return self.open(version, verify=False)

    def activate(self, version: int) -> None:
        """Make a version current, and the latest that TF Serving finds.

        The links and the configuration for TF Serving change first and `current` last, so repeating
        what was interrupted finishes it.

        Raises:
            BundleError: there is no such version, or its manifest cannot be read.
        """
        bundle = self.open(version, verify=False)
        with locked(self.root / ".lock"):
            self._link_models(version)
            write_configs(self.root, bundle.models)
            symlink_atomic(self.root / "current", _folder_of(version))

    def rollback(self, *, to: int | None = None) -> int:
        """Verify an earlier version and make it current; answers which.

        Args:
            to: any published version, also a newer one to undo a rollback; by default the
                highest below the current.

        Raises:
            BundleError: there is no such version, or it is damaged; nothing has changed then.
        """
        target = self._before_current() if to is None else to
        self.open(target)
        self.activate(target)
        return target

    def open(self, version: int | None = None, *, verify: bool = True) -> Bundle:
        """Open a version, by default the current.

        Raises:
            BundleError: there is no such version, its manifest cannot be read or, with `verify`,
                a file of it is not as published.
        """
        if version is None:
            version = self.current()
            if version is None:
                raise BundleError(f"{self.root}: no version is current; {self._choices()}")
        path = self.root / _folder_of(version)
        if version not in self.versions():
            raise BundleError(f"{path}: no such version; {self._choices()}")
        bundle = Bundle.read(path, verify=verify)
        if bundle.version != version:
            raise BundleError(
                f"{path / MANIFEST}: expected version {version}, as the folder's name says, "
                f"received {bundle.version}; rename the folder back"
            )
        return bundle

    def _before_current(self) -> int:
        current = self.current()
        if current is None:
            raise BundleError(
                f"{self.root}: no version is current, so there is none to roll back from; "
                f"{self._choices()}"
            )
        earlier = [version for version in self.versions() if version < current]
        if not earlier:
            raise BundleError(
                f"{self.root}: expected a version below the current, {current}, to roll back to, "
                f"received none; {self._choices()}"
            )
        return earlier[-1]

    def _choices(self) -> str:
        versions = ", ".join(str(version) for version in self.versions())
        return f"versions that exist: {versions}" if versions else "publish one first"

    def _staged(self) -> list[Path]:
        """The folders of versions being written, by this process or another, living or dead."""
        found = self.root.glob(f"{STAGING}*")
        return sorted({path.with_name(path.name.removesuffix(".lock")) for path in found})

    def abandoned(self) -> list[Path]:
        """The folders of versions that were being written by processes that have died."""
        found = []
        for staged in self._staged():
            if staged.exists():
                with locked(_lock_of(staged), wait=False) as is_abandoned:
                    found += [staged] if is_abandoned else []
        return found

    def remove_abandoned(self) -> None:
        """Remove them."""
        with locked(self.root / ".lock"):
            self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        """Remove the staging folders that no living process holds; `.lock` must be held."""
        for staged in self._staged():
            with locked(_lock_of(staged), wait=False) as abandoned:
                if abandoned:
                    if staged.exists():
                        shutil.rmtree(staged)
                    _lock_of(staged).unlink(missing_ok=True)

    def _link_models(self, latest: int) -> None:
        """Link the models of every version up to `latest`, then unlink all others."""
        wanted = {
            self.root / "models" / saved_model.parent.name / saved_model.name: saved_model
            for version in self.versions()
            if version <= latest
            for saved_model in (self.root / _folder_of(version) / "models").glob(f"*/{version}")
        }
        for link, target in wanted.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            relative = Path(os.path.relpath(target, link.parent))
            if not (link.is_symlink() and link.readlink() == relative):
                symlink_atomic(link, relative)
        for link in (self.root / "models").glob("*/*"):
            if link.is_symlink() and link not in wanted:
                link.unlink()
                sync(link.parent)


def open_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """Open the current version of a models directory, or the one bundle whose folder `path` is.

    Raises:
        BundleError: `path` is neither, or the bundle cannot be used.
    """
    if (path / MANIFEST).exists():
        return Bundle.read(path, verify=verify)
    if (path / "versions").is_dir():
        return Store(path).open(verify=verify)
    raise BundleError(
        f"{path}: expected a models directory (with versions/) or the folder of one version (with "
        f"{MANIFEST}), received neither; check the path"
    )


def _folder_of(version: int) -> Path:
    """Where a version is, relative to the models directory."""
    return Path("versions", str(version))


def _staged_name(staged: Path) -> str:
    return staged.name.removeprefix(STAGING)


def _lock_of(staged: Path) -> Path:
    return staged.with_name(f"{staged.name}.lock")
