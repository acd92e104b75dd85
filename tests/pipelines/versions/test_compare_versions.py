from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipelines.results import Results
from pipelines.versions.compare_versions import compare_versions
from serving.retrieval.retriever import Retriever
from towers.errors import ConfigError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call


def test_two_versions_side_by_side(published: tuple[Path, Results]) -> None:
    models, results = published
    found = compare_versions(models, 1, 2, k=5)
    first, second = (Retriever.open(models, version=version) for version in (1, 2))
    users = first.catalogue("user").published.ids.to_numpy().tolist()
    lists = [
        r.retrieve_batch("u2i", ids=users, k=5, exclude_seen=True).ids.tolist()
        for r in (first, second)
    ]
    assert found.overlap is not None
    assert found.overlap.n_users == len(users)
    assert found.overlap.shared == pytest.approx(
        np.mean([len({*a} & {*b}) / 5 for a, b in zip(*lists, strict=True)])
    )
    assert found.overlap.first == pytest.approx(
        np.mean([a[0] == b[0] for a, b in zip(*lists, strict=True)])
    )
    assert found.settings == {}
    assert found.counts["users"] == (60, 60)
    assert found.counts["items only here"] == (0, 0)
    assert found.counts["training interactions"][0] == first.parts.seen.matrix.nnz
    recorded = [
        r["evaluation"]["segments"]["all"]["figures"]["recall@5"] for r in results["rounds"]
    ]
    assert found.figures["recall@5 of all"] == tuple(recorded)
    lengths = np.linalg.norm(second.catalogue("item").vectors, axis=1)
    assert found.lengths["items, longest"][1] == pytest.approx(lengths.max())
    assert found.index["u2i, kind"] == ("exact", "exact")
    assert json.loads(json.dumps(found.to_dict()))["versions"] == [1, 2]


def test_a_version_agrees_with_itself(call: Call, models: Path) -> None:
    answer = call("compare", 2, 2, "-m", models, "--json", "--users", 7)
    found = json.loads(answer.out)
    assert answer.code == 0
    assert found["overlap"] == {"n_users": 7, "k": 20, "shared": 1.0, "first": 1.0, "equal": 1.0}
    shown = call("compare", 1, 2, "-m", models)
    assert "No setting differs" in shown.out
    assert "of the users have the same first item" in shown.out
    with pytest.raises(ConfigError, match="users of at least 1"):
        compare_versions(models, 1, 2, n_users=0)
