from __future__ import annotations

import errno
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

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
COMMANDS = {
    "init": ["files", "--out", "--again", "--quiet"],
    "check": ["config", "--json", "--engine", "--master", "--quiet"],
    "run": [
        "config",
        "--out",
        "--from",
        "--engine",
        "--master",
        "--promote",
        "--journal",
        "--quiet",
        "--json",
    ],
    "tune": ["config", "--out", "--trials", "--minutes", "--only", "--dims", "--quiet", "--json"],
    "demo": ["--out", "--serve", "--port", "--quiet", "--json"],
    "query": [
        *("direction", "--models", "-m", "--id", "--features", "-k", "--exclude"),
        *("--exclude-seen", "--max-per", "--diversity", "--show", "--json", "--version"),
        "--rank",
    ],
    "explain": [
        *("--models", "-m", "--user", "--item", "--user-features", "--item-features"),
        *("--direction", "--limit", "--show", "--fields", "--users", "-k", "--json", "--version"),
        "--rank",
    ],
    "clean": ["models", "--yes"],
    "candidates": [
        *("models", "--users", "--out", "--items", "--config", "-k", "--channels", "--where"),
        *("--max-per", "--diversity", "--block", "--version", "--again", "--engine", "--master"),
        *("--quiet", "--json", "--rank"),
    ],
    "refresh": [
        "models",
        "--interactions",
        "--version",
        "--engine",
        "--master",
        "--quiet",
        "--json",
    ],
    "versions": ["--models", "-m"],
    "rollback": ["models", "--to"],
    "serve": [
        *("models", "--host", "--port", "--grpc-port", "--max-k", "--max-batch", "--max-body-mb"),
        *("--max-queue", "--timeout", "--poll", "--log-level", "--log-format", "--journal"),
        *("--index", "--uri", "--prefix", "--allow-host", "--allow-origin", "--header-timeout"),
        *("--idle", "--max-cells", "--max-connections", "--max-header-kb", "--max-list"),
        *("--max-results", "--memory-limit", "--read-only", "--shutdown", "--tls-certificate"),
        *("--tls-key", "--tokens", "--without-tokens", "--workers", "--write-port"),
        *("--access-log", "--max-unknown"),
    ],
}
"""The arguments and options of every command."""


@pytest.mark.slow
@pytest.mark.usefixtures("no_graphs")
def test_run_publishes_and_says_what_to_do_next(tiny: Tiny, tmp_path: Path, call: Call) -> None:
    training = {"epochs": 1, "rounds": 0}
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


@pytest.mark.parametrize(
    ("direction", "id"), [("u2i", USER), ("i2i", ITEM), ("u2u", USER), ("i2u", ITEM)]
)
def test_query_answers_as_the_retriever_does(
    call: Call, models: Path, direction: str, id: str
) -> None:
    answer = call("query", direction, "-m", models, "--id", id, "-k", 3, "--json")
    assert (answer.code, answer.err) == (0, "")
    own = int(id) if direction[0] == "u" else id
    expected = Retriever.open(models).retrieve(direction, id=own, k=3)
    hits = json.loads(answer.out)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert [hit["id"] for hit in hits] == expected["id"].tolist()
    assert [hit["score"] for hit in hits] == pytest.approx(expected["score"].tolist(), abs=1e-6)
    table = call("query", direction, "-m", models, "--id", id, "-k", 3).out
    assert f"{direction}, version {Store(models).current()}" in table
    assert all(str(hit["id"]) in table for hit in hits)


@pytest.mark.parametrize(
    ("direction", "features"),
    [
        ("u2i", {"history": [ITEM, "item 7 é"], "city": "Łódź", "age": 30}),
        ("u2u", {"history": [ITEM]}),
        ("i2i", {"tags": ["group 2"]}),
        ("i2u", {"item_id": "new", "tags": ["group 2"]}),
        ("u2i", {}),
    ],
)
def test_query_answers_for_someone_new(
    call: Call, models: Path, direction: str, features: dict[str, Any]
) -> None:
    text = json.dumps(features, ensure_ascii=False)
    answer = call("query", direction, "--models", models, "--features", text, "--json")
    assert (answer.code, answer.err) == (0, "")
    expected = Retriever.open(models).retrieve(direction, features=features)
    assert [hit["id"] for hit in json.loads(answer.out)] == expected["id"].tolist()


def test_query_leaves_out_what_is_not_wanted(call: Call, models: Path) -> None:
    def found(*args: object) -> list[str]:
        answer = call("query", "u2i", "-m", models, "--id", USER, "-k", 40, "--json", *args)
        assert answer.code == 0
        return [hit["id"] for hit in json.loads(answer.out)]

    every = found()
    assert len(every) == 40
    assert found("--exclude", f"{every[0]}, {every[2]},nobody") == [every[1], *every[3:]]
    retriever = Retriever.open(models)
    seen = set(retriever.catalogue("item").ids(retriever.parts.seen.of("user", 0)))
    assert seen
    assert found("--exclude-seen") == [item for item in every if item not in seen]


def test_query_answers_with_what_differs_in_kind(call: Call, models: Path) -> None:
    args = ("query", "u2u", "-m", models, "--id", USER, "-k", 10, "--json")
    capped = json.loads(call(*args, "--max-per", "city=1", "--show", "city").out)
    assert sorted(hit["columns"]["city"] for hit in capped) == ["Lima", "Oslo", "Rome", "Łódź"]
    unlike = json.loads(call(*args, "--diversity", 0.9).out)
    expected = Retriever.open(models).retrieve("u2u", id=int(USER), k=10, diversity=0.9)
    assert [hit["id"] for hit in unlike] == expected["id"].tolist()
    assert [hit["id"] for hit in unlike] != [hit["id"] for hit in json.loads(call(*args).out)]
    refused = call(*args, "--max-per", "city")
    assert refused.code == 2
    assert "--max-per: expected columns with a number each" in refused.err


def test_query_shows_columns_that_are_asked_for(call: Call, models: Path) -> None:
    args = ("query", "u2i", "-m", models, "--id", USER, "-k", 2)
    assert "Title" not in call(*args).out
    table = call(*args, "--show", "title, tags").out
    hits = json.loads(call(*args, "--show", "title,tags", "--json").out)
    assert list(hits[0]) == ["rank", "id", "score", "columns"]
    for shown in (hit["columns"] for hit in hits):
        assert list(shown) == ["title", "tags"]
        assert shown["tags"] == [f"group {int(shown['title'].split()[1]) % 4}", "any"]
        assert shown["title"] in table
        assert ", ".join(shown["tags"]) in table


def test_query_asks_an_earlier_version(call: Call, models: Path) -> None:
    for version in (1, 2):
        args = ("query", "u2i", "-m", models, "--id", USER, "--version", version)
        hits = json.loads(call(*args, "--json").out)
        expected = Retriever.open(models, version=version).retrieve("u2i", id=int(USER))
        assert [hit["id"] for hit in hits] == expected["id"].tolist()
        assert f"u2i, version {version}" in call(*args).out


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


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_argument_and_option(call: Call, command: str) -> None:
    answer = call(command, "--help")
    assert answer.code == 0
    for name in COMMANDS[command]:
        assert name in answer.out.lower()
    declared = typer.main.get_command(cli.app).commands[command].params  # type: ignore[attr-defined]
    spelled = {
        name for param in declared for name in (*param.opts, *param.secondary_opts) if "-" in name
    }
    assert spelled <= {*COMMANDS[command], "--help", "--no-exclude-seen"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--port", "70000"], "port: .*less than or equal to 65535"),
        (["--max-k", "0"], "max_k: .*greater than"),
        (["--timeout", "0"], "timeout_s: .*greater than 0"),
        (["--log-level", "loud"], r"log level: expected one of \['debug', .*'loud'"),
        (["--log-format", "xml"], "log format: expected one of .*'xml'"),
    ],
)
def test_serve_refuses_settings_that_make_no_sense(
    call: Call, tmp_path: Path, options: list[str], expected: str
) -> None:
    answer = call("serve", tmp_path, *options)
    assert answer.code == 2
    assert re.search(expected, answer.err)


def test_serve_refuses_a_path_that_is_no_directory(call: Call, tmp_path: Path) -> None:
    answer = call("serve", tmp_path / "none")
    assert answer.code == 2
    assert f"{tmp_path / 'none'}: expected a models directory" in answer.err


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_serve_says_that_a_port_is_taken_and_leaves_no_more_than_a_journal(
    call: Call, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.server.runtime.logs.configure", lambda level, *, format: None)
    monkeypatch.setattr("gc.freeze", lambda: None)  # what a process does, not a test
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = call("serve", tmp_path, "--port", 0, "--grpc-port", 0, option, port)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {option.strip('-').replace('-', '_')}: ")
    assert len(answer.err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"journal"}


def test_help_lists_the_commands(call: Call) -> None:
    answer = call("--help")
    assert answer.code == 0
    assert all(f" {name} " in answer.out for name in COMMANDS)


def test_help_does_not_wait_for_tensorflow() -> None:
    script = """
import sys
from pipelines.cli.main import main
try:
    main()
finally:
    print([name for name in ("tensorflow", "scann", "pandas") if name in sys.modules])
"""
    for args in (["--help"], ["query", "--help"], ["serve", "--help"]):
        ended = subprocess.run(
            [sys.executable, "-c", script, *args], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0
        assert ended.stdout.splitlines()[-1] == "[]"


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
