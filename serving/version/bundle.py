"""Bundle: the files of one published version, and whether they are still what was published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.version.manifest import MANIFEST, FileRecord, Manifest, is_plain, list_files
from serving.version.tables_read import TABLES_READ
from towers.errors import BundleError

HELD_OUT = "held_out.parquet"
RANKER = "ranker.json"
"""The file of what the ranker is, in versions that have one."""

RECENT = "recent.parquet"
"""The file of how often items were chosen of late, in versions that know."""

DATES = "dates.parquet"
"""The file of the time from which each item was there, in versions that were measured by it."""


@dataclass(frozen=True)
class Bundle:
    """One version: its folder and its manifest. Nothing changes the folder once it is published."""

    path: Path
    manifest: Manifest

    @classmethod
    def read(cls, path: Path, *, verify: bool = True) -> Bundle:
        """Read the bundle in the folder `path`; links are resolved, so it stays at one version.

        Raises:
            BundleError: the manifest cannot be read or, with `verify`, a file is not as published.
        """
        path = path.resolve()
        bundle = cls(path, Manifest.read(path / MANIFEST))
        if verify:
            bundle.verify()
        return bundle

    @property
    def version(self) -> int:
        """The version's number."""
        return self.manifest.version

    @property
    def vocabulary(self) -> Path:
        """The folder of the vocabulary."""
        return self.path / "vocabulary"

    @property
    def users(self) -> Path:
        """The embeddings of the users, as Parquet."""
        return self.path / "users.parquet"

    @property
    def items(self) -> Path:
        """The embeddings of the items, as Parquet."""
        return self.path / "items.parquet"

    @property
    def seen(self) -> Path:
        """Which items each user has interacted with, as Parquet."""
        return self.path / "seen.parquet"

    def history(self, name: str) -> Path:
        """The pairs of users and items of a history of behaviours."""
        return self.path / "histories" / f"{name}.parquet"

    @property
    def judged(self) -> Path | None:
        """The pairs of users and items that are known without a positive, if there are some."""
        path = self.path / "judged.parquet"
        return path if path.exists() else None

    @property
    def held_out(self) -> Path:
        """The interactions that it was measured by, and not trained on, as Parquet; if any."""
        return self.path / HELD_OUT

    @property
    def tables_read(self) -> Path:
        """When the tables were read, as JSON; see `serving.version.tables_read`."""
        return self.path / TABLES_READ

    @property
    def recent(self) -> Path:
        """How often items were chosen of late, as Parquet; there only where times are known."""
        return self.path / RECENT

    @property
    def dates(self) -> Path:
        """The time from which each item was there, as Parquet; only where it was measured by it."""
        return self.path / DATES

    @property
    def ranker(self) -> Path:
        """What its ranker is, as JSON; there only where it has one."""
        return self.path / RANKER

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint that training continues from."""
        return self.path / "checkpoint"

    @property
    def metrics(self) -> Path:
        """The evaluation's figures, as JSON."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The evaluation's report, as HTML."""
        return self.path / "report.html"

    def index(self, direction: str) -> Path:
        """The folder of the index of `direction`: u2i, i2i, u2u or i2u."""
        return self.path / "index" / direction

    @property
    def models(self) -> list[str]:
        """The names of the SavedModels, in order."""
        return sorted(path.parent.name for path in self.path.glob(f"models/*/{self.version}"))

    def model(self, name: str) -> Path:
        """The folder of the SavedModel `name`: user_tower, item_tower or a direction."""
        return self.path / "models" / name / str(self.version)

    def verify(self) -> None:
        """Compare every file with the manifest; reads all of them.

        Raises:
            BundleError: files are damaged, missing or unexpected; the message names each.
        """
        expected, present = self.manifest.files, list_files(self.path)
        faults = dict.fromkeys(expected.keys() - present.keys(), "missing")
        faults |= dict.fromkeys(present.keys() - expected.keys(), "unexpected")
        for name in expected.keys() & present.keys():
            fault = _find_damage(present[name], expected[name])
            if fault:
                faults[name] = f"damaged: {fault}"
        if faults:
            lines = "\n".join(f"  {name}: {fault}" for name, fault in sorted(faults.items()))
            raise BundleError(
                f"{self.path}: {len(faults)} file(s) differ from {MANIFEST}\n{lines}\n"
                f"{self._remedy()}"
            )

    def verify_file(self, file: Path) -> None:
        """Compare one file of the bundle with the manifest.

        Raises:
            BundleError: it is damaged, missing or unexpected.
        """
        name = file.relative_to(self.path).as_posix()
        expected = self.manifest.files.get(name)
        fault = "unexpected" if expected is None else _find_damage(file, expected)
        if fault:
            raise BundleError(f"{file}: differs from {MANIFEST}: {fault}; {self._remedy()}")

    def _remedy(self) -> str:
        """Say what to do about damage; names the version to go back to where there is one."""
        earlier = [v for v in list_versions(self.path.parent) if v < self.version]
        back = f", or roll back to version {earlier[-1]}" if earlier else ""
        return f"publish again{back}"


def list_versions(folder: Path) -> list[int]:
    """The versions that have a folder of their own in `folder`, in order; ignores all else."""
    if not folder.is_dir():
        return []
    numbers = (parse_version(path.name) for path in folder.iterdir() if path.is_dir())
    return sorted(number for number in numbers if number is not None)


def parse_version(name: str) -> int | None:
    """The version that a file name such as `12` stands for; None for `0`, `012`, `v12`."""
    plain = name.isascii() and name.isdecimal() and not name.startswith("0")
    return int(name) if plain else None


def _find_damage(path: Path, expected: FileRecord) -> str | None:
    """Say how the file at `path` differs from its record; None where it does not."""
    if not is_plain(path):
        return "not a plain file"
    try:
        size = path.stat().st_size
        if size != expected.bytes:
            return f"expected {expected.bytes} bytes, received {size}"
        received = FileRecord.of(path).sha256
    except OSError as error:
        return str(error.strerror)
    if received != expected.sha256:
        return f"expected sha256 {expected.sha256}, received {received}"
    return None
