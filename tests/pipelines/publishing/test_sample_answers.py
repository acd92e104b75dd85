from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.publishing.sample_answers import sample_answers, title_column
from pipelines.results import Results
from serving.retrieval.retriever import Retriever

pytestmark = pytest.mark.slow


def test_answers_are_those_that_serving_gives_with_the_largest_parts_of_their_scores(
    published: tuple[Path, Results],
) -> None:
    retriever = Retriever.open(published[0], version=1)
    answers = sample_answers(retriever, n_users=3, k=2, seed=3)
    assert len(answers) == 3
    for answer in answers:
        hits = retriever.retrieve("u2i", id=answer["user"], k=2, exclude_seen=True)
        assert [item["id"] for item in answer["items"]] == hits["id"].tolist()
        assert [item["title"] for item in answer["items"]] == hits["item.title"].tolist()
        (row,) = retriever.parts.known_rows("user", [answer["user"]])
        past = retriever.parts.seen.of("user", int(row))
        assert answer["n_past"] == len(past)
        assert answer["past"] == retriever.catalogue("item").show(past[-5:])["title"].tolist()
        for item in answer["items"]:
            ends = {"source": {"id": answer["user"]}, "target": {"id": item["id"]}}
            parts = retriever.explain("u2i", **ends).parts(3)
            assert [reason["value"] for reason in item["reasons"]] == [p.value for p in parts]
            assert all("item " not in reason["text"] for reason in item["reasons"]), "ids as titles"


def test_a_run_says_them_and_what_changed_against_the_version_before(
    published: tuple[Path, Results],
) -> None:
    first, second = published[1]["rounds"]
    assert "changes" not in first
    assert second["changes"]["versions"] == [1, 2]
    assert second["changes"]["settings"] == {}
    assert len(second["samples"]) == 4
    assert second["index_costs"]["u2i"]["kind"] == "exact"
    assert title_column(Retriever.open(published[0]).catalogue("item")) == "title"
    assert sum(map(sum, published[1]["data"]["time_line"]["parts"].values())) > 0
