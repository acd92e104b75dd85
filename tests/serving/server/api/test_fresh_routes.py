from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.serving.retrieval.fresh.journal_support import limited_file_size
from tests.serving.server.api_support import Api, running_api

NEW = {"item_id": "new/1 ü", "genres": ["x"], "price": 3.0, "title": "New"}
PATH = "/v1/items/new%2F1%20%C3%BC"


@pytest.fixture
def api(published: Path, tmp_path: Path) -> Iterator[Api]:
    with running_api(published, journal=tmp_path / "journal", max_batch=8) as api:
        yield api


@pytest.fixture(scope="module")
def unchanged(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """For requests that are refused."""
    journal = tmp_path_factory.mktemp("journal")
    with running_api(published, journal=journal, max_batch=8) as api:
        yield api


def ranked(api: Api, direction: str, source: dict[str, Any]) -> dict[Any, float]:
    """All targets of a source, with their scores."""
    answer = api.post(f"/v1/retrieve/{direction}", {**source, "k": 1000}).json()
    return {result["id"]: result["score"] for result in answer["results"]}


def message(response: Any, status: int) -> str:
    assert response.status_code == status
    text: str = response.json()["error"]["message"]
    return text


def test_a_fresh_item_is_found_at_once_and_gone_when_deleted(api: Api) -> None:
    before = ranked(api, "u2i", {"features": {}})
    response = api.post("/v1/items", {"items": [NEW]})
    assert response.json() == {"version": 1, "inserted": 1, "replaced": 0, "left_out": 0}
    after = ranked(api, "u2i", {"features": {}})
    assert set(after) - set(before) == {NEW["item_id"]}
    assert {id: after[id] for id in before} == pytest.approx(before, abs=1e-5)
    assert NEW["item_id"] in ranked(api, "i2i", {"id": "item 1"})
    assert len(ranked(api, "i2i", {"id": NEW["item_id"]})) == len(before)
    assert api.request("DELETE", PATH).json() == {
        "version": 1,
        "deleted": 1,
        "unknown": 0,
        "left_out": 0,
    }
    assert ranked(api, "u2i", {"features": {}}) == pytest.approx(before, abs=1e-5)
    assert api.request("DELETE", PATH).json() == {
        "version": 1,
        "deleted": 0,
        "unknown": 1,
        "left_out": 0,
    }
    assert "has no item" in message(api.post("/v1/retrieve/i2i", {"id": NEW["item_id"]}), 404)


def test_a_fresh_user_is_found_by_items_and_users(api: Api) -> None:
    user = {"user_id": 5, "city": "a", "history": ["item 1", "item 2"]}
    before = ranked(api, "i2u", {"id": "item 1"})
    assert api.post("/v1/users", {"users": [user]}).json()["inserted"] == 1
    for direction, source in (("i2u", "item 1"), ("u2u", 2**40)):
        assert 5 in ranked(api, direction, {"id": source})
    features = {"city": "a", "history": ["item 1", "item 2"]}
    assert ranked(api, "u2i", {"id": 5}) == pytest.approx(
        ranked(api, "u2i", {"features": features}), abs=1e-5
    )
    answer = api.post("/v1/users/delete", {"ids": [5, 5, 6, 2**40]}).json()
    assert answer == {"version": 1, "deleted": 2, "unknown": 1, "left_out": 0}
    assert set(before) - set(ranked(api, "i2u", {"id": "item 1"})) == {2**40}


def test_a_record_takes_the_place_of_the_one_before(api: Api) -> None:
    cheap = {**NEW, "price": -9.0, "genres": ["y"]}
    counts = [api.post("/v1/items", {"items": [one]}).json() for one in (NEW, cheap)]
    assert [count["replaced"] for count in counts] == [0, 1]
    assert api.get(PATH).json()["columns"] == cheap
    known = api.post("/v1/items", {"items": [{"item_id": "item 3"}, {"item_id": "b"}]}).json()
    assert known == {"version": 1, "inserted": 1, "replaced": 1, "left_out": 0}
    assert api.get("/v1/items/item 3").json()["columns"] == {
        "item_id": "item 3",
        "genres": None,
        "price": None,
        "title": None,
    }


def test_published_records_can_be_looked_up_and_deleted(api: Api, world: Any) -> None:
    row = world.sides["item"].table.to_pandas().iloc[3]
    assert api.get("/v1/items/item 3").json() == {
        "version": 1,
        "id": "item 3",
        "columns": {
            "item_id": "item 3",
            "genres": list(row["genres"]),
            "price": pytest.approx(row["price"]),
            "title": "Title 3",
        },
    }
    api.request("DELETE", "/v1/items/item 3")
    assert "has no item 'item 3'" in message(api.get("/v1/items/item 3"), 404)
    assert api.get(f"/v1/users/{2**40}").json()["columns"]["user_id"] == 2**40


@pytest.mark.slow
def test_changes_outlive_the_server(published: Path, tmp_path: Path) -> None:
    with running_api(published, journal=tmp_path) as api:
        api.post("/v1/items", {"items": [NEW, {"item_id": "other"}]})
        api.post("/v1/items/delete", {"ids": ["other", "item 3", "not yet"]})
        before = ranked(api, "u2i", {"features": {}})
    with running_api(published, journal=tmp_path) as api:
        assert ranked(api, "u2i", {"features": {}}) == pytest.approx(before, abs=1e-5)
        assert api.get(PATH).json()["columns"] == NEW
        assert api.get("/v1/items/item 3").status_code == 404


@pytest.mark.slow
def test_a_record_that_would_spoil_the_index_is_refused_and_forgotten(
    published: Path, tmp_path: Path
) -> None:
    """What no vector can be made of must not keep the next start from loading the version."""
    with running_api(published, journal=tmp_path) as api:
        for record in ({"item_id": "a", "price": 3.4e38}, {"item_id": "a", "price": -1e30}):
            text = message(api.post("/v1/items", {"items": [NEW, record]}), 400)
            assert "item_id 'a': expected a finite vector" in text
        assert "item_id" in message(api.post("/v1/items", {"items": [{"item_id": ""}]}), 400)
        assert len(ranked(api, "u2i", {"features": {}})) == 120
    with running_api(published, journal=tmp_path) as api:
        assert len(ranked(api, "u2i", {"features": {}})) == 120


def test_one_record_that_does_not_fit_refuses_all(api: Api) -> None:
    answer = api.post("/v1/items", {"items": [NEW, {"item_id": "b", "price": "cheap"}]})
    assert "price" in message(answer, 400)
    assert api.get(PATH).status_code == 404
    assert api.core._changes._journal.entries() == []  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/items", {"items": []}, 400, "body.items: List should have at least 1 item"),
        ("/v1/items", {"users": [NEW]}, 400, "body: unknown field 'users'"),
        ("/v1/items", {"items": [{"title": "x"}]}, 400, "item_id"),
        ("/v1/items", {"items": [{"item_id": 5}]}, 400, "item_id: expected text"),
        ("/v1/items", {"items": [{"item_id": "a", "year": 5}]}, 400, "unknown columns ['year']"),
        ("/v1/items", {"items": [{"item_id": "a", "title": ["x"]}]}, 400, "column 'title'"),
        ("/v1/items", {"items": [{"item_id": "a", "genres": [["x"]]}]}, 400, "'genres': expected"),
        ("/v1/items", {"items": [{"item_id": "a"}] * 9}, 413, "items: expected at most 8"),
        ("/v1/users", {"users": [{"user_id": "7"}]}, 400, "user_id: expected a 64-bit integer"),
        ("/v1/users/delete", {"ids": ["7"]}, 400, "user_id: expected a 64-bit integer"),
        ("/v1/users/delete", {"ids": [None]}, 400, "body.ids.0: expected a 64-bit integer or text"),
        ("/v1/users/delete", {"ids": list(range(9))}, 413, "users: expected at most 8"),
    ],
)
def test_changes_that_do_not_fit_are_refused(
    unchanged: Api, path: str, body: Any, status: int, text: str
) -> None:
    assert text in message(unchanged.post(path, body), status)


@pytest.mark.parametrize("id", ["x", "", "1_0", "007", "+7", " 7", "\uff19", "9" * 30, "1e3"])
def test_ids_in_paths_are_integers_where_ids_are(unchanged: Api, id: str) -> None:
    for method in ("GET", "DELETE"):
        response = unchanged.request(method, f"/v1/users/{id}")
        assert "user_id: expected a" in message(response, 400)


def test_without_a_journal_changes_are_refused(published: Path) -> None:
    with running_api(published) as api:
        assert "journal" in message(api.post("/v1/items", {"items": [NEW]}), 503)
        assert api.get("/v1/items/item 3").status_code == 200


def test_an_id_called_delete_can_be_deleted(api: Api) -> None:
    api.post("/v1/items", {"items": [{"item_id": "delete"}]})
    assert api.get("/v1/items/delete").json()["id"] == "delete"
    assert api.request("DELETE", "/v1/items/delete").json()["deleted"] == 1


def test_a_full_disk_is_said_and_questions_are_answered(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_api(published, journal=tmp_path) as api:
        with limited_file_size(600):
            response = api.post("/v1/items", {"items": [NEW]})
            assert "nothing has changed; ask again once it has room" in message(response, 507)
            assert str(tmp_path) not in response.text
            assert str(tmp_path) in caplog.records[-1].error  # type: ignore[attr-defined]
            assert api.post("/v1/retrieve/u2i", {"features": {}, "k": 3}).status_code == 200
        assert api.post("/v1/items", {"items": [NEW]}).json()["inserted"] == 1


def test_ids_with_any_character_work_in_paths(api: Api) -> None:
    ids = (
        "a/b",
        "a//b",
        "?",
        "#",
        "%2F",
        "a b",
        "é",
        "🎈",
        ":",
        "delete",
        "a\\b",
        "'\"",
        "+",
        "&=;",
    )
    for id in ids:
        path = f"/v1/items/{quote(id, safe='')}"
        put = api.post("/v1/items", {"items": [NEW | {"item_id": id}]})
        assert put.json()["inserted"] == 1, id
        assert api.get(path).json()["id"] == id
        assert api.request("DELETE", path).json()["deleted"] == 1, id
        assert api.get(path).status_code == 404, id
