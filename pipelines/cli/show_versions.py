"""Print the versions of a models directory, and what differs between two."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from pipelines.cli.draw_table import figure, new_table, plain, print_table, setting
from pipelines.versions.compare_versions import ComparedVersions
from serving.version.store import Store
from towers.errors import BundleError


def show_versions(console: Console, store: Store) -> None:
    """Print the published versions of a models directory.

    Raises:
        BundleError: there is none.
    """
    if not store.versions():
        raise BundleError(f"{store.root}: no version is published there; check the path")
    table = new_table()
    for name in ("version", "", "created", "mined with", "recall@20", "ndcg@20", "index"):
        table.add_column(name, justify="right" if "@" in name else "left", no_wrap=True)
    current, faults = store.current(), list[str]()
    for version in store.versions():
        try:
            manifest = store.open(version, verify=False).manifest
        except BundleError as error:
            table.add_row(str(version), "current" if version == current else "", "cannot be read")
            faults.append(str(error).partition("\n")[0])
            continue
        figures: dict[str, Any] = manifest.metrics["segments"]["all"]["figures"]
        mined = manifest.mined or {}
        table.add_row(
            str(version),
            "current" if version == current else "",
            manifest.created[:16].replace("T", " "),
            str(mined.get("version", "-")),
            figure(figures.get("recall@20")),
            figure(figures.get("ndcg@20")),
            str(manifest.index["kind"]),
        )
    print_table(console, str(store.root), table)
    for fault in faults:
        console.print(fault, markup=False, highlight=False, soft_wrap=True)


def show_compared(console: Console, found: ComparedVersions) -> None:
    """Print what differs between two versions, side by side."""
    names = [f"version {version}" for version in found.versions]
    if found.versions[0] == found.versions[1] or not found.settings:
        console.print("No setting differs.")
    groups = {
        "Settings that differ": found.settings,
        "Data": found.counts,
        "Figures, each on what was held out from it": found.figures,
        "Lengths of vectors": found.lengths,
        "Indexes": found.index,
    }
    for title, pairs in groups.items():
        if not pairs:
            continue
        table = new_table()
        table.add_column("", overflow="fold")
        for name in names:
            table.add_column(name, justify="right", overflow="fold")
        for name, pair in pairs.items():
            table.add_row(plain(name), *(plain(setting(value)) for value in pair))
        print_table(console, title, table)
    if (overlap := found.overlap) is None:
        console.print("No user is in both versions, so their lists are not compared.")
        return
    console.print(
        f"Of {overlap.n_users:,} users' best {overlap.k} items, {overlap.shared:.1%} are in both "
        f"lists; {overlap.first:.1%} of the users have the same first item, and "
        f"{overlap.equal:.1%} the same items.",
        highlight=False,
        soft_wrap=True,
    )
