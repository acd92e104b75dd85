"""Warn of what an expert would ask about before training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.check.look_at_features import warn_of_features
from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS
from pipelines.data.faults.report import read_rejected
from pipelines.data.prepare import Prepared
from towers.features.schema import Side

MANY_SINGLE = 0.5
"""Warn where so large a share of the users, or of the items, has one interaction."""
MUCH_OF_ONE = 0.05
"""Warn where one user has so large a share of all interactions; of an item, four times that."""
MOSTLY_COLD = 0.5
REJECTED = 0.02
"""Warn where more of a table's rows are at fault for one reason."""
FEW_USERS = 100
SHORT_TEST = 0.002
"""Warn where the test is so small a part of the time that all interactions take."""


def warn(config: RunConfig, prepared: Prepared, described: dict[str, Any]) -> list[str]:
    """List the warnings, each a sentence with a remedy."""
    return [
        *_of_rejected(prepared),
        *_of_counts(prepared, described),
        *_of_split(config, described),
        *warn_of_features(config, prepared),
    ]


def _of_rejected(prepared: Prepared) -> Iterator[str]:
    """Many rows at fault for one reason."""
    for one in read_rejected(prepared.lines):
        if one.count > REJECTED * one.rows:
            yield (
                f"{one.count / one.rows:.0%} of the rows of the {one.table} are set aside: "
                f"{one.reason}; so many are no exceptions: mend their cause first"
            )


def _of_counts(prepared: Prepared, described: dict[str, Any]) -> Iterator[str]:
    """What the counts of interactions say."""
    stored = prepared.stored(*PARTS)
    total = max(int(stored.item_counts.sum()), 1)
    kinds: dict[Side, tuple[NDArray[np.int64], float]] = {
        "user": (stored.user_counts, MUCH_OF_ONE),
        "item": (stored.item_counts, 4 * MUCH_OF_ONE),
    }
    for side, (counts, most) in kinds.items():
        one, some = int((counts == 1).sum()), int((counts > 0).sum())
        if one > MANY_SINGLE * some:
            remedy = (
                "their history is empty when they are tested: give users other features, and read "
                "the figures of warm users"
                if side == "user"
                else "their ids can hardly be learned: give items other features"
            )
            yield f"{one / some:.0%} of the {side}s have a single interaction; {remedy}"
        largest = int(counts.max(initial=0))
        if largest > most * total and some > 1 / most:
            row = int(np.argmax(counts))
            name = prepared.tables[side].iloc[:, 0].tolist()[row]
            yield (
                f"{side} {name!r} has {largest / total:.0%} of all interactions; is it a test "
                "account, a default, or a robot? if so, leave it out"
            )


def _of_split(config: RunConfig, described: dict[str, Any]) -> Iterator[str]:
    """What the split says."""
    parts, cold, times = described["parts"], described["cold"], described["times"]
    if parts["test"]["interactions"] == 0:
        yield "nothing is held out for the test: there will be no figures; set split.test_fraction"
        return
    for part in ("validation", "test"):
        users = parts[part]["users"]
        if 0 < users < FEW_USERS:
            yield (
                f"the {part} part has only {users:,} users: its figures are mostly chance; hold "
                f"out more (split.{part}_fraction), or collect more interactions"
            )
    unknown = cold["test interactions with items of no training interaction"]
    if unknown > MOSTLY_COLD:
        yield (
            f"{unknown:.0%} of the test interactions are with items that training has never seen: "
            "ids say nothing of these; give items other features, and read the figures of cold ones"
        )
    newcomers = cold["test users without a training interaction"]
    if newcomers > MOSTLY_COLD:
        yield (
            f"{newcomers:.0%} of the test users have no training interaction: they are recommended "
            "what their features say, or what is popular; read the figures of warm users, too"
        )
    if times is None:
        yield (
            "the interactions have no times: the split is random, so that the figures are those of "
            "a past that knows the future; name data.interactions.timestamp if there are times"
        )
        return
    yield from _of_times(config, times)


def _of_times(config: RunConfig, times: dict[str, Any]) -> Iterator[str]:
    """What the times say."""
    edges, begin = times["edges"], times.get("from", {})
    if not edges or edges[0] == edges[-1]:
        yield "all interactions have the same time, so that nothing comes before or after another"
        return
    test = begin.get("test")
    if config.split.by != "random" and test is not None:
        share = (edges[-1] - test) / (edges[-1] - edges[0])
        if share < SHORT_TEST:
            yield (
                f"the test is the last {share:.2%} of the time: most interactions came at once, "
                'perhaps by an import; check the times, or set split.by = "random"'
            )
    late = pd.Timestamp.now().timestamp()
    if config.data.interactions.timestamp_format in {None, "s"} and late < edges[-1] < 4 * late:
        yield "some times are in the future; check the column and timestamp_format"
