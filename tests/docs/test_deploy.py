"""The files in deploy/ fit each other, the server's command line and TF Serving's."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from pipelines.cli.main import app
from serving.version.deployment import (
    BATCHING_CONFIG,
    MODELS_CONFIG,
    MONITORING_CONFIG,
    MOUNT,
)

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
FLAGS = {
    "model_config_file": MODELS_CONFIG,
    "monitoring_config_file": MONITORING_CONFIG,
    "batching_parameters_file": BATCHING_CONFIG,
    "file_system_poll_wait_seconds": None,
    "enable_batching": None,
}
"""Those of `tensorflow_model_server`, and the files that they name."""


def services(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    return found


def test_there_is_a_file_for_each_server() -> None:
    names = {path.name for path in COMPOSE}
    assert names == {"compose.yaml", "compose.scann.yaml", "compose.serve.yaml"}


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_name_what_exists(path: Path) -> None:
    for own in services(path).values():
        service = own
        registry, _, _ = service["image"].rpartition("/")
        assert "." not in registry
        if "extends" in own:
            base = services(DEPLOY / own["extends"]["file"])
            service = base[own["extends"]["service"]] | own
        build = service.get("build")
        if build is not None:
            context = DEPLOY / build["context"]
            assert (context / build.get("dockerfile", "Dockerfile")).is_file()
        [mount] = service["volumes"]
        assert mount["target"] == MOUNT
        assert mount["source"].startswith("${MODELS_DIR:?")
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_image_installs_wheels_of_known_hashes_in_the_versions_of_the_constraints() -> None:
    lines = (DEPLOY / "serve" / "requirements.txt").read_text(encoding="utf-8").splitlines()[1:]
    hashed = re.compile(r"(\S+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)")
    found = {match[1]: match[2] for line in lines if (match := hashed.fullmatch(line))}
    assert len(found) == len(lines)
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    pinned = {canonicalize_name(name): v for name, _, v in (x.partition("==") for x in constraints)}
    assert found.items() <= pinned.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {canonicalize_name(Requirement(one).name) for one in project["dependencies"]} <= set(
        found
    )


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_containers_run_as_a_user_without_rights_and_have_health_checks(path: Path) -> None:
    for own in services(path).values():
        service = own
        if "extends" in own:
            service = services(DEPLOY / own["extends"]["file"])[own["extends"]["service"]] | own
        assert service["user"].startswith("${RECALL_USER:-1000")
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        build = own.get("build")
        image = "" if build is None else _dockerfile(build).read_text()
        assert "healthcheck" in service or "\nHEALTHCHECK " in image
        assert build is None or re.search(r"\nUSER \S+\n(?!.*\nUSER root)", image)


def _dockerfile(build: dict[str, str]) -> Path:
    return DEPLOY / build["context"] / build.get("dockerfile", "Dockerfile")


def test_stock_server_is_of_the_version_that_the_models_are_exported_with() -> None:
    image = services(DEPLOY / "compose.yaml")["tf-serving"]["image"]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    [tensorflow] = [pin for pin in pins if pin.startswith("tensorflow==")]
    minor = tensorflow.removeprefix("tensorflow==").rpartition(".")[0]
    assert image.startswith(f"tensorflow/serving:{minor}.")
    assert (
        f"ARG TF_SERVING={image.partition(':')[2]}\n" in (DEPLOY / "scann/Dockerfile").read_text()
    )


def test_scann_is_of_the_version_that_the_models_are_exported_with() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    [scann] = [pin.removeprefix("scann==") for pin in pins if pin.startswith("scann==")]
    assert f"ScaNN {scann} is for" in (DEPLOY / "scann/Dockerfile").read_text()


def test_flags_name_the_files_that_activation_writes() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    given = re.findall(r"- --(\w+)=(\S+)", text)
    assert {name for name, _ in given} == FLAGS.keys()
    for name, value in given:
        if FLAGS[name] is not None:
            assert value == f"{MOUNT}/{FLAGS[name]}"


def test_image_of_our_own_server_is_made_of_what_exists() -> None:
    text = (DEPLOY / "serve" / "Dockerfile").read_text(encoding="utf-8")
    copied = [
        name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()
    ]
    assert {"pyproject.toml", "towers", "serving", "pipelines"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    [arguments] = re.findall(r"^CMD \[(.*)\]$", text, re.MULTILINE)
    options = re.findall(r'"(--[\w-]+)"', arguments)
    assert f'"{MOUNT}"' in arguments
    help_text = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    assert options
    assert [option for option in options if option not in help_text] == []


def test_scann_is_linked_into_the_servers_sources(tmp_path: Path) -> None:
    """Bazel cannot run here; what its files say after the change can be read."""
    scann, server = tmp_path / "scann", tmp_path / "tensorflow-serving"
    operations = scann / "scann/scann_ops/cc/BUILD.bazel"
    build = server / "tensorflow_serving/model_servers/BUILD"
    for path in (operations, build):
        path.parent.mkdir(parents=True)
    (scann / "MODULE.bazel").write_text("bazel_dep()\n")
    (server / "WORKSPACE").write_text('workspace(name = "tf_serving")\n')
    build.write_text('SUPPORTED_TENSORFLOW_OPS = if_v2([]) + [\n    "//text:ops",\n]\n')
    operations.write_text(
        'load("@pybind11_bazel//:build_defs.bzl", "pybind_library")\n\n'
        'cc_library(\n    name = "scann_ops",\n)\n\n'
        'pybind_library(\n    name = "scann_npy",\n    deps = [\n        ":scann",\n    ],\n)\n'
    )
    bash = shutil.which("bash") or "bash"
    link = DEPLOY / "scann/link.sh"
    subprocess.run([bash, str(link), str(scann)], cwd=server, check=True)
    assert "pybind" not in operations.read_text()
    assert operations.read_text().count("cc_library(") == 2
    assert 'name = "scann_ops_static"' in operations.read_text()
    target = "@com_google_scann//scann/scann_ops/cc:scann_ops_static"
    assert build.read_text().startswith(f'SUPPORTED_TENSORFLOW_OPS = ["{target}"] + if_v2([]) + [')
    workspace = (server / "WORKSPACE").read_text()
    for path in re.findall(r'path = "(.*)"', workspace):
        assert (Path(path) / "WORKSPACE").exists()
        assert not (Path(path) / "MODULE.bazel").exists()
    assert (scann / "build_deps/server_tensorflow/BUILD.bazel").exists()
