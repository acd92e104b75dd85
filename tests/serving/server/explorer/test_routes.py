from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.retrieval.retriever import Retriever
from serving.server.explorer import other_version
from serving.server.explorer import page as explorer_page
from serving.server.explorer.page import FOLDER
from serving.version.manifest import MANIFEST, FileRecord, Manifest
from tests.patience import PATIENCE_S, wait_until
from tests.serving.server.api_support import Api, running_api

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.serving.conftest import World
    from tests.serving.server.conftest import Shifted

USER = 2**40


@pytest.fixture(scope="module")
def root(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory to which versions are added."""
    root = tmp_path_factory.mktemp("versions") / "models"
    shutil.copytree(published, root, symlinks=True)
    return root


@pytest.fixture(scope="module")
def api(published: Path) -> Iterator[Api]:
    with running_api(published) as api:
        yield api


def compare(api: Api, **body: Any) -> tuple[int, Any]:
    response = api.post("/v1/explorer/compare", {"direction": "u2i", "k": 5, **body})
    return response.status_code, response.json()


def test_the_page_may_load_nothing_from_elsewhere(api: Api) -> None:
    page = api.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    files = [path.name for path in FOLDER.iterdir()]
    assert {"index.html", "app.js", "explorer.css"} < set(files)
    for path in ["/", *(f"/explorer/{name}" for name in files)]:
        response = api.get(path)
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in response.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in response.text
        assert "innerHTML" not in response.text


def test_only_the_pages_files_are_served(api: Api) -> None:
    for path in ("nothing.js", "../explorer_api.py", "%2e%2e/explorer_api.py", ""):
        response = api.get(f"/explorer/{path}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "NOT_FOUND"
    assert api.request("POST", "/").status_code == 405


def test_the_schema_has_features_and_columns(api: Api, world: World) -> None:
    schema = api.get("/v1/explorer/schema").json()
    assert (schema["version"], schema["name"], schema["max_k"]) == (1, "world", 1000)
    assert schema["ranker"] is None
    assert [d["name"] for d in schema["directions"]] == ["u2i", "i2i", "u2u", "i2u"]
    user, item = schema["user"], schema["item"]
    assert (user["id"], user["id_type"], user["label"]) == ("user_id", "integer", None)
    assert (item["id"], item["id_type"], item["label"]) == ("item_id", "text", "title")
    assert [(f["name"], f["kind"], f["type"], f["many"]) for f in user["features"]] == [
        ("history", "history", "text", True),
        ("city", "categorical", "text", False),
    ]
    assert sorted(user["features"][1]["examples"]) == ["a", "b", "c"]
    columns = {column["name"]: column for column in item["columns"]}
    assert list(columns) == ["genres", "price", "title"]
    assert (columns["genres"]["many"], columns["genres"]["examples"]) == (True, ["x", "y"])
    prices = world.sides["item"].table["price"].to_numpy()
    assert columns["price"]["min"] == pytest.approx(prices.min())
    assert columns["price"]["max"] == pytest.approx(prices.max())


def test_a_search_answers_rows(api: Api) -> None:
    found = api.get("/v1/explorer/search/item?q=title 11&limit=3").json()
    assert [row["id"] for row in found["results"]] == ["item 11", "item 110", "item 111"]
    assert found["total"] == 11
    assert found["results"][0]["columns"]["title"] == "Title 11"
    assert set(found["results"][0]["columns"]) == {"item_id", "genres", "price", "title"}
    found = api.get(f"/v1/explorer/search/user?q={USER}").json()
    assert [row["id"] for row in found["results"]] == [USER]
    assert len(api.get("/v1/explorer/search/user").json()["results"]) == 20


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("search/item?limit=0", "query.limit"),
        ("search/item?limit=101", "query.limit"),
        ("search/item?q=" + "a" * 201, "query.q"),
        ("search/film", "path.side"),
        ("history/x", "user_id: expected an integer"),
        ("history/1_0", "user_id: expected an integer"),
        ("versions/0/report", "path.version"),
        ("versions/one/report", "path.version"),
    ],
)
def test_what_does_not_fit_is_400(api: Api, path: str, problem: str) -> None:
    response = api.get(f"/v1/explorer/{path}")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_ARGUMENT"
    assert problem in response.json()["error"]["message"]


def test_ids_are_looked_up_together(api: Api) -> None:
    body = {"ids": ["item 3", "nothing", "item 1"]}
    found = api.post("/v1/explorer/lookup/item", body).json()
    assert [row["id"] for row in found["results"]] == ["item 3", "item 1"]
    assert found["results"][1]["columns"]["title"] == "Title 1"
    for ids in ([], ["item 1"] * 1001, [1]):
        assert api.post("/v1/explorer/lookup/item", {"ids": ids}).status_code == 400


def test_a_users_items_are_those_of_training(api: Api, world: World) -> None:
    rows = world.seen.of("user", 4)
    past = api.get(f"/v1/explorer/history/{USER + 4}?limit=2").json()
    assert past["total"] == len(rows)
    assert [row["id"] for row in past["items"]] == [f"item {row}" for row in rows[:2]]
    named = api.get(f"/v1/explorer/history/{USER + 4}?limit=2&name=history").json()
    assert named == past
    assert api.get(f"/v1/explorer/history/{USER + 4}?name=nothing").status_code == 400
    assert api.get(f"/v1/explorer/history/{USER - 1}").status_code == 404


def test_fresh_users_and_items_are_searched_and_have_a_past(
    published: Path, tmp_path: Path
) -> None:
    with running_api(published, journal=tmp_path / "journal") as api:
        api.post("/v1/items", {"items": [{"item_id": "new", "title": "Title 1 once more"}]})
        user = {"user_id": 5, "city": "a", "history": ["new", "item 2", "nothing"]}
        api.post("/v1/users", {"users": [user]})
        api.post("/v1/items/delete", {"ids": ["item 111"]})
        found = api.get("/v1/explorer/search/item?q=title 1 once").json()
        assert [row["id"] for row in found["results"]] == ["new"]
        assert api.get("/v1/explorer/search/item?q=title 111").json()["total"] == 0
        past = api.get("/v1/explorer/history/5").json()
        assert [row["id"] for row in past["items"]] == ["new", "item 2"]


def publish_report(folder: Path, text: str) -> None:
    """Have a version be one that was published with a report."""
    (folder / "report.html").write_text(text, encoding="utf-8")
    manifest = Manifest.read(folder / MANIFEST)
    files = {**manifest.files, "report.html": FileRecord.of(folder / "report.html")}
    changed = dataclasses.replace(manifest, files=files)
    (folder / MANIFEST).write_text(changed.to_json(), encoding="utf-8")


def test_versions_have_their_figures_and_report(root: Path, shifted: Shifted) -> None:
    second = shifted(root, 1, activate=False)
    folder = root / "versions" / str(second)
    publish_report(folder, "<h1>Ré</h1>")
    third = shifted(root, 2, activate=False)
    (root / "versions" / str(third) / "manifest.json").write_text("{", encoding="utf-8")
    with running_api(root) as api:
        answer = api.get("/v1/explorer/versions").json()
        assert answer["version"] == 1
        listed = [(v["version"], v["is_current"], v["readable"]) for v in answer["versions"]]
        assert listed == [(third, False, False), (second, False, True), (1, True, True)]
        report = api.get(f"/v1/explorer/versions/{second}/report")
        assert report.text == "<h1>Ré</h1>"
        assert report.headers["content-type"] == "text/html; charset=utf-8"
        assert "sandbox" in report.headers["content-security-policy"]
        assert "default-src 'none'" in report.headers["content-security-policy"]
        for version in (1, third, 99):
            missing = api.get(f"/v1/explorer/versions/{version}/report")
            assert missing.status_code == 404
            assert str(root) not in missing.text
        (folder / "report.html").write_text("<h1>Re</h1>", encoding="utf-8")
        damaged = api.get(f"/v1/explorer/versions/{second}/report")
        assert damaged.status_code == 409
        assert "report is damaged" in damaged.json()["error"]["message"]
        for other in (third, second):
            code, body = compare(api, id=USER, other=other)
            assert code == 409
            assert str(root) not in body["error"]["message"]


def test_two_versions_are_compared(
    root: Path, shifted: Shifted, best: Callable[..., list[str]]
) -> None:
    other = shifted(root, 3, activate=False)
    with running_api(root) as api:
        code, found = compare(api, id=USER, other=other, k=4, columns=["title"])
        assert code == 200
        mine, theirs = best(0, k=120), best(0, shift=3, k=120)
        assert [one["id"] for one in found["results"]] == mine[:4]
        assert [one["id"] for one in found["other_results"]] == theirs[:4]
        assert (found["version"], found["other"], found["reach"]) == (1, other, 100)
        assert set(found["new"]) == set(mine[:4]) - set(theirs[:4])
        assert set(found["gone"]) == set(theirs[:4]) - set(mine[:4])
        assert set(found["moved"]) == {
            one for one in set(mine[:4]) & set(theirs[:4]) if mine.index(one) != theirs.index(one)
        }
        for listed, others in ((found["results"], theirs), (found["other_results"], mine)):
            for place, one in enumerate(listed):
                assert one["rank"] == place + 1
                rank = others.index(one["id"]) + 1
                assert one["other_rank"] == (rank if rank <= 100 else None)
                assert one["columns"] == {"title": one["id"].replace("item", "Title")}


def test_a_comparison_applies_the_whole_question(root: Path, shifted: Shifted) -> None:
    other = shifted(root, 3, activate=False)
    body: dict[str, Any] = {
        "features": {"city": "a", "history": ["item 1"]},
        "exclude": ["item 2"],
        "exclude_seen": True,
        "where": {"column": "genres", "equals": "x"},
    }
    with running_api(root) as api:
        code, found = compare(api, other=other, **body)
        assert code == 200
        for listed, version in ((found["results"], 1), (found["other_results"], other)):
            hits = Retriever.open(root, version=version).retrieve("u2i", k=5, **body)
            assert [one["id"] for one in listed] == hits["id"].tolist()
            assert "columns" not in listed[0] or listed[0]["columns"] == {}


def test_a_comparison_knows_what_is_fresh(root: Path, shifted: Shifted, tmp_path: Path) -> None:
    other = shifted(root, 3, activate=False)
    with running_api(root, journal=tmp_path / "journal") as api:
        for user in (5, 6):  # the second while the other version is open
            api.post("/v1/users", {"users": [{"user_id": user, "city": "a"}]})
            code, found = compare(api, id=user, other=other)
            assert code == 200
            assert len(found["other_results"]) == 5


def test_what_cannot_be_compared(root: Path, shifted: Shifted) -> None:
    other = shifted(root, 3, activate=False)
    with running_api(root, max_k=50) as api:
        for code, problem, body in (
            (404, "other: expected one of", {"id": USER, "other": 999}),
            (404, "version 1 has no user 7", {"id": 7, "other": other}),
            (400, "another version than the one", {"id": USER, "other": 1}),
            (400, "k: expected at most 50", {"id": USER, "other": other, "k": 51}),
            (400, "body.other", {"id": USER, "other": 0}),
            (400, "id or features", {"other": other}),
            (400, "nothing", {"id": USER, "other": other, "columns": ["nothing"]}),
        ):
            answered, found = compare(api, **body)
            assert (answered, problem in found["error"]["message"]) == (code, True), found


def test_a_version_that_takes_long_to_open_is_503_and_there_later(
    root: Path, shifted: Shifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shifted(root, 3, activate=False)
    may_open = threading.Event()

    def open_slowly(bundle: Any) -> Retriever:
        may_open.wait(PATIENCE_S)
        return Retriever(bundle)

    with running_api(root, timeout_s=0.5) as api:
        monkeypatch.setattr(other_version, "Retriever", open_slowly)
        code, found = compare(api, id=USER, other=other)
        assert (code, found["error"]["code"]) == (503, "UNAVAILABLE")
        wait_until(lambda: api.post("/v1/retrieve/u2i", {"id": USER}).status_code == 200)
        may_open.set()
        wait_until(lambda: compare(api, id=USER, other=other)[0] == 200)


def test_before_a_version_is_loaded_it_is_503_but_for_the_page(tmp_path: Path) -> None:
    with running_api(tmp_path, wait=False) as api:
        assert api.get("/").status_code == 200
        for path in ("schema", "search/item", "versions", "history/1"):
            assert api.get(f"/v1/explorer/{path}").status_code == 503


def test_what_the_explorer_is_asked_is_counted(published: Path) -> None:
    with running_api(published) as api:
        api.get("/v1/explorer/schema")
        text = api.get("/metrics").text
    assert 'fm_recall_requests_total{code="OK",model="explorer",surface="retrieve"} 1.0' in text


def test_the_page_is_installed_with_the_package() -> None:
    assert (Path(explorer_page.__file__).parent / "static" / "index.html").is_file()
