from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines import run as run_module
from pipelines.cli import demo
from pipelines.cli import main as cli
from pipelines.cli.exits import BAD_INPUT
from pipelines.results import Results
from serving.retrieval.retriever import Retriever
from serving.version.store import Store

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call, Tiny

USER, ITEM = str(2**40), "item 3 é"


@pytest.mark.slow
@pytest.mark.usefixtures("no_graphs")
def test_run_publishes_and_says_what_to_do_next(tiny: Tiny, tmp_path: Path, call: Call) -> None:
    training = {"epochs": 1, "rounds": 0, "refit_on_all": False}
    config = tiny.write(tmp_path, suffix="csv", training=training)
    out = tmp_path / "models"
    answer = call("run", config, "--out", out)
    assert (answer.code, answer.err) == (0, "")
    for text in (
        "interactions: 709 rows read, 709 kept",
        "510 train, 57 validation, 142 test",
        "round 0: fit",
        "version 1 is published and current",
        "Test figures at 5",
        "popularity",
        "round 0 (v1)",
        str(out / "current" / "report.html"),
        f"fm-recall query u2i -m {out} --id ID",
    ):
        assert text in answer.out
    assert (out / "current" / "report.html").is_file()
    hits = call("query", "u2i", "-m", out, "--id", USER, "--json")
    assert hits.code == 0
    assert len(json.loads(hits.out)) == 10


def test_versions_are_listed_and_rolled_back(call: Call, models: Path, tmp_path: Path) -> None:
    copy = tmp_path / "models"
    shutil.copytree(models, copy, symlinks=True)
    Store(copy).activate(2)
    lines = call("versions", "-m", copy).out.splitlines()
    rows = [line.split() for line in lines if line.rstrip().endswith("exact")]
    assert [row[0] for row in rows] == ["1", "2"]
    assert ["current" in row for row in rows] == [False, True]
    answer = call("rollback", copy)
    assert (answer.code, answer.err) == (0, "")
    assert "Version 1 is current" in answer.out
    assert Store(copy).current() == 1
    assert call("rollback", copy, "--to", 2).code == 0
    assert Store(copy).current() == 2


QUERY = ["query", "u2i", "-m", "MODELS"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["query", "u2x", "-m", "MODELS", "--id", USER], "u2x"),
        ([*QUERY, "--id", "7"], "no user 7"),
        ([*QUERY, "--id", "Ann"], "user_id: expected an integer, as in training, received 'Ann'"),
        (["query", "i2i", "-m", "MODELS", "--id", "item [b]"], "no item 'item [b]'"),
        (QUERY, "either the id or the features"),
        ([*QUERY, "--id", USER, "--features", "{}"], "received both"),
        ([*QUERY, "--features", "{"], "--features: expected a JSON object, received '{'"),
        ([*QUERY, "--features", "[/b]"], "--features: expected a JSON object, received '[/b]'"),
        ([*QUERY, "--features", "[1]"], "--features: expected a JSON object, received '[1]'"),
        ([*QUERY, "--features", '{"shoe": 3}'], "shoe"),
        ([*QUERY, "--features", '{"age": "old"}'], "age"),
        ([*QUERY, "--features", '{"history": 3}'], "history"),
        ([*QUERY, "--features", '{"city": [["Rome"]]}'], "city"),
        ([*QUERY, "--id", USER, "-k", "0"], "k: expected at least 1, received 0"),
        ([*QUERY, "--id", USER, "--show", "title,shoe"], "shoe"),
        ([*QUERY, "--id", USER, "--version", "9"], "no such version; versions that exist: 1, 2"),
        (["query", "u2u", "-m", "MODELS", "--id", USER, "--exclude-seen"], "exclude_seen"),
        (["query", "i2u", "-m", "MODELS", "--id", ITEM, "--exclude", "Ann"], "user_id"),
        (["query", "u2i", "-m", "MISSING", "--id", USER], "MISSING"),
        (["versions", "-m", "MISSING"], "MISSING"),
        (["rollback", "MISSING"], "MISSING"),
        (["rollback", "MODELS", "--to", "9"], "no such version"),
        (["run", "MISSING.toml"], "MISSING.toml: no such configuration file"),
        (["run", "FOLDER"], "FOLDER: cannot be read"),
        (["run", "BAD.toml"], "not valid TOML"),
        (["run", "TYPO.toml"], "training.epoch: unknown key"),
        (["run", "NOWHERE.toml"], "nowhere.csv"),
        (["tune", "MISSING.toml"], "MISSING.toml: no such configuration file"),
        (["tune", "NOWHERE.toml"], "nowhere.csv"),
        (
            ["tune", "NOWHERE.toml", "--only", "l2"],
            "received l2; choose from training.learning_rate",
        ),
        (["tune", "NOWHERE.toml", "--out", "BAD.toml"], "BAD.toml: expected a folder"),
        (["tune", "NOWHERE.toml", "--out", "."], ".: expected a new or empty folder"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing_behind(
    call: Call,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    named: str,
) -> None:
    (tmp_path / "FOLDER").mkdir()
    files = {
        "BAD.toml": "= 1",
        "TYPO.toml": "data = {interactions = {path = 'x.csv'}}\ntraining = {epoch = 1}",
        "NOWHERE.toml": "data = {interactions = {path = 'nowhere.csv'}}",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = Store(models).current()
    answer = call(*[str(models) if arg == "MODELS" else arg for arg in args])
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert named in answer.err
    assert "Traceback" not in answer.err
    assert {path.name for path in tmp_path.iterdir()} == {"FOLDER", *files}
    assert Store(tmp_path / "models").versions() == []
    assert Store(models).current() == before


@pytest.mark.parametrize(
    "args", [["query"], ["query", "u2i", "--bogus"], ["bogus"], ["query", "u2i", "-k", "many"]]
)
def test_wrong_usage_ends_with_code_2(call: Call, args: list[str]) -> None:
    answer = call(*args)
    assert answer.code == 2
    assert "fm-recall" in answer.err
    assert "Traceback" not in answer.err


def test_an_interruption_ends_with_code_130(
    call: Call, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run", interrupt)
    answer = call("run", tiny.write(tmp_path), "--out", tmp_path / "models")
    assert answer.code == 130
    assert "the same command goes on from the last finished epoch or stage" in answer.err
    monkeypatch.setattr(demo, "run_demo", interrupt)
    assert call("demo", "--out", tmp_path / "demo").code == 130
    monkeypatch.setattr(Retriever, "open", interrupt)
    assert call("query", "u2i", "--id", "1").code == 130


def test_the_demo_is_served_only_when_asked(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[int] = []
    monkeypatch.setattr(demo, "run_demo", lambda *_: tmp_path / "models")
    monkeypatch.setattr(demo, "serve_demo", lambda *_, port: served.append(port))
    answer = call("demo", "--out", tmp_path)
    assert f"serve {tmp_path / 'models'}" in answer.out.splitlines()[-1]
    assert served == []
    call("demo", "--out", tmp_path, "--serve", "--port", "0")
    assert served == [0]


@pytest.mark.parametrize("given", ["1", "current"])
def test_run_continues_from_the_version_that_is_given(
    tiny: Tiny,
    published: tuple[Path, Results],
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
) -> None:
    models, results = published
    versions = []

    def note(*_: object, from_version: int, **__: object) -> Results:
        versions.append(from_version)
        return results

    monkeypatch.setattr(run_module, "run", note)
    answer = call("run", tiny.write(tmp_path), "--out", models, "--from", given)
    assert (answer.code, answer.err) == (0, "")
    assert versions == [1 if given == "1" else Store(models).current()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("latest", "--from: expected the number of a version, or 'current', received 'latest'"),
        ("0", "--from: expected the number of a version, or 'current', received '0'"),
        ("current", "no version is current; publish one first"),
        ("9", "no such version; publish one first"),
    ],
)
def test_run_refuses_a_version_to_continue_from_that_is_none(
    tiny: Tiny, tmp_path: Path, call: Call, given: str, expected: str
) -> None:
    config = tiny.write(tmp_path / "data")
    answer = call("run", config, "--out", tmp_path / "models", "--from", given)
    assert answer.code == BAD_INPUT
    assert expected in answer.err
    assert not (tmp_path / "models").exists()


def _caused() -> Exception:
    try:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded", "shard")
        except OSError as error:
            raise RuntimeError("shard not written") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "models/versions/3/users.parquet"),
        RuntimeError("IO Error: Could not write file: No space left on device"),
        _caused(),
    ],
)
def test_a_full_disk_is_one_line_whichever_library_meets_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "error: the disk is full" in said
    assert said.count("\n") == 1


def test_an_error_that_nobody_expects_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        cli.main()
