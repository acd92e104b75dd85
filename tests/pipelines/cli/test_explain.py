"""`explain`: what a score is the sum of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.retrieval.retriever import Retriever

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call

USER, ITEM = str(2**40), "item 3 é"
OTHER_USER, OTHER_ITEM = str(2**40 + 4), "item 7 é"
NEW_USER: dict[str, Any] = {"city": "Rome", "history": [ITEM, OTHER_ITEM]}
NEW_ITEM: dict[str, Any] = {"tags": ["group 1", "new"]}


@pytest.mark.parametrize(
    ("given", "direction", "source", "target"),
    [
        (["--user", USER, "--item", ITEM], "u2i", {"id": int(USER)}, {"id": ITEM}),
        (["--item", ITEM, "--item", OTHER_ITEM], "i2i", {"id": ITEM}, {"id": OTHER_ITEM}),
        (
            ["--user", USER, "--user", OTHER_USER],
            "u2u",
            {"id": int(USER)},
            {"id": int(OTHER_USER)},
        ),
        (
            ["--user", USER, "--item", ITEM, "--direction", "i2u"],
            "i2u",
            {"id": ITEM},
            {"id": int(USER)},
        ),
        (
            ["--user-features", json.dumps(NEW_USER), "--item-features", json.dumps(NEW_ITEM)],
            "u2i",
            {"features": NEW_USER},
            {"features": NEW_ITEM},
        ),
        (
            ["--item-features", json.dumps(NEW_ITEM), "--item", ITEM],
            "i2i",
            {"id": ITEM},
            {"features": NEW_ITEM},
        ),
    ],
)
def test_explain_answers_as_the_retriever_does(
    call: Call, models: Path, given: list[str], direction: str, source: Any, target: Any
) -> None:
    answer = call("explain", "-m", models, *given, "--json", "--limit", 5)
    assert (answer.code, answer.err) == (0, "")
    found = Retriever.open(models).explain(direction, source=source, target=target)
    assert json.loads(answer.out) == json.loads(json.dumps(found.to_dict(limit=5)))
    assert len(json.loads(answer.out)["parts"]) == 5


def test_explain_shows_parts_and_fields(call: Call, models: Path) -> None:
    answer = call("explain", "-m", models, "--user", USER, "--item-features", json.dumps(NEW_ITEM))
    assert (answer.code, answer.err) == (0, "")
    found = Retriever.open(models).explain(
        "u2i", source={"id": int(USER)}, target={"features": NEW_ITEM}
    )
    assert f"the score, {found.score:.4f}, is the sum of" in answer.out
    first = found.parts(1)[0]
    for text in ("history: item", "tags: group 1", "tags: new (unknown)", f"{first.value:+.4f}"):
        assert text in answer.out
    assert f"{len(found) - 20} more" in answer.out
    assert "By field" in answer.out


def test_explain_shows_columns_of_items(call: Call, models: Path) -> None:
    new = json.dumps(NEW_USER | {"history": ["item 5 é"]})
    given = ["--user-features", new, "--item", ITEM, "--show", "title"]
    answer = call("explain", "-m", models, *given)
    assert (answer.code, answer.err) == (0, "")
    assert "history: item 5 é Title 5" in answer.out
    assert f"item_id: {ITEM} Title 3" in answer.out


def test_explain_shows_which_fields_carry_the_scores(call: Call, models: Path) -> None:
    answer = call("explain", "-m", models, "--fields", "--users", 9, "-k", 3, "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert (found["users"], found["samples"]) == (9, 27)
    assert sum(row["share"] for row in found["fields"]) == pytest.approx(1)
    pairs = {(row["source"], row["target"]) for row in found["fields"]}
    assert {("history", "item_id"), ("city", "tags"), (None, "item_id")} <= pairs
    shown = call("explain", "-m", models, "--fields", "--users", 9, "-k", 3)
    assert "what carries 27 scores, of 9 users" in shown.out
    assert f"{found['fields'][0]['share']:.1%}" in shown.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "explain u2i: expected one user and one item"),
        (["--user", USER], "received 1 user(s) and 0 item(s)"),
        (["--user", USER, "--user", OTHER_USER, "--item", ITEM], "explain u2u: expected two users"),
        (["--user", USER, "--item", "none"], "has no item 'none'"),
        (["--user", "x", "--item", ITEM], "user_id: expected an integer"),
        (["--user", USER, "--item-features", "{"], "--item-features: expected a JSON object"),
        (["--user", USER, "--item", ITEM, "--direction", "x"], "direction: expected one of"),
        (
            ["--user", USER, "--item", ITEM, "--show", "colour"],
            "received 'colour', which the table of item_id does not have",
        ),
        (["--fields", "--users", 0], "users: expected at least 1, received 0"),
    ],
)
def test_explain_names_bad_input(
    call: Call, models: Path, args: list[object], message: str
) -> None:
    answer = call("explain", "-m", models, *args)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
