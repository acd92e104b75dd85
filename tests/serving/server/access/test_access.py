"""Every route of both surfaces: who shows no token that counts, or lacks the right, is refused."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from serving.server.access.tokens import Tokens
from serving.server.process import Addresses, serve
from serving.server.runtime.settings import ServerSettings
from tests.patience import PATIENCE_S
from tests.serving.server.api_support import Api, running_api
from towers.errors import ConfigError

pytestmark = pytest.mark.slow

RIGHTS = ("read", "write", "admin")
TOKENS = (
    "".join(
        f'[{right}]\ntoken = "the token of {right}"\nrights = ["{right}"]\n' for right in RIGHTS
    )
    + '[past]\ntoken = "a token of the past"\nrights = ["read"]\nexpires = 2020-01-01T00:00:00Z\n'
)
OTHERS = [
    ("GET", "/"),
    ("GET", "/explorer/page.js"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/v1/models/u2i"),
    ("GET", "/V1/Models/u2i/metadata"),
    ("POST", "/v1/models/u2i:predict"),
    ("PUT", "/v1/items"),
    ("POST", "/V1/ITEMS"),
    ("GET", "/no/such/path"),
]
METHODS = [
    *(f"PredictionService/{name}" for name in ("Predict", "GetModelMetadata", "Classify")),
    *(f"PredictionService/{name}" for name in ("Regress", "MultiInference")),
    *(f"ModelService/{name}" for name in ("GetModelStatus", "HandleReloadConfigRequest")),
]


@pytest.fixture(scope="module")
def api(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    journal = tmp_path_factory.mktemp("journal")
    with running_api(published, journal=journal, tokens=Tokens(text=TOKENS)) as api:
        yield api


def show(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def routes(api: Api) -> list[tuple[str, str]]:
    """Every route that OpenAPI describes, and the others."""
    paths = api.app.openapi()["paths"]
    known = [
        (method.upper(), path.replace("{direction}", "u2i").replace("{side}", "item"))
        for path, methods in paths.items()
        for method in methods
    ]
    return [*known, *OTHERS]


def expected_right(method: str, path: str) -> str:
    if method in {"POST", "DELETE", "PUT"} and path.lower().startswith(("/v1/items", "/v1/users")):
        return "write"
    admin = ("/metrics", "/v1/explorer/versions", "/v1/explorer/compare")
    return "admin" if path.startswith(admin) else "read"


def test_every_route_asks_for_a_token_with_its_right(api: Api) -> None:
    asked = routes(api)
    assert len(asked) > 25
    for method, path in asked:
        wrong: list[dict[str, str]] = [{}, show("the token of nobody"), show("a token of the past")]
        for headers in wrong:
            response = api.request(method, path, headers=headers)
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"].startswith("Basic")
            assert "error" in response.json()
        for right in RIGHTS:
            response = api.request(method, path, headers=show(f"the token of {right}"))
            is_allowed = right == expected_right(method, path)
            assert (response.status_code in {401, 403}) == (not is_allowed), (method, path, right)
    for path in ("/healthz", "/readyz"):
        assert api.get(path).status_code == 200


def test_changes_are_told_to_the_audit_log_with_who_made_them(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger().setLevel(logging.WARNING)
    body = {"items": [{"item_id": "fresh"}]}
    response = api.request("POST", "/v1/items", json=body, headers=show("the token of write"))
    assert response.status_code == 200
    api.request("DELETE", "/v1/items/fresh", headers=show("the token of write"))
    found = [vars(record) for record in caplog.records if record.name == "fm_recall.audit"]
    assert [(one["who"], one["put"], one["deleted"]) for one in found] == [
        ("write", ["fresh"], []),
        ("write", [], ["fresh"]),
    ]


HOSTILE: list[dict[str, str]] = [
    {"host": "evil.example"},
    {"host": "evil.example:8501"},
    {"host": "localhost.evil.example"},
    {"host": ""},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:9999", "host": "localhost:8501"},
]


@pytest.mark.parametrize("headers", HOSTILE)
def test_a_page_that_has_bound_its_name_to_the_address_or_is_elsewhere_is_refused(
    published: Path, headers: dict[str, str]
) -> None:
    with running_api(published, origins=("https://shop.example",), hosts=("recall",)) as api:
        refused = api.request("POST", "/v1/items/delete", json={"ids": ["a"]}, headers=headers)
        assert refused.status_code == 403
        assert "--allow-" in refused.json()["error"]["message"]
        for own in (
            {"host": "127.0.0.1:8501", "origin": "http://127.0.0.1:8501"},
            {"host": "[::1]:8501"},
            {"host": "recall"},
            {"origin": "https://shop.example"},
        ):
            assert api.request("GET", "/v1/items/item%203", headers=own).status_code == 200
        assert api.request("GET", "/healthz", headers=headers).status_code == 200


def test_nothing_listens_beyond_loopback_without_a_token_unless_told_so() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "recall.example"):
        with pytest.raises(ConfigError, match="expected tokens where the server listens beyond"):
            ServerSettings(host=host)
        ServerSettings(host=host, open_to_all=True)
        ServerSettings(host=host, tokens_text=TOKENS)
    for host in ("127.0.0.1", "::1", "localhost", "127.3.2.1"):
        ServerSettings(host=host)
    with pytest.raises(ConfigError, match="expected a certificate and its key"):
        ServerSettings(tls_key=Path("key.pem"))
    assert "the token of" not in repr(ServerSettings(tokens_text=TOKENS))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes a certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_both_surfaces_are_encrypted_and_every_method_of_grpc_asks_for_a_token(
    published: Path, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    async def test() -> None:
        found: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
        settings = ServerSettings(
            port=0, grpc_port=0, tls_certificate=certificate[0], tls_key=certificate[1],
            tokens_text=TOKENS,
        )  # fmt: skip
        server = asyncio.create_task(
            serve(published, settings=settings, journal=tmp_path, ready=found.set_result)
        )
        addresses = await asyncio.wait_for(found, PATIENCE_S)
        assert addresses.rest.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=str(certificate[0]))
        patient = httpx.AsyncClient(base_url=addresses.rest, verify=trusted, timeout=PATIENCE_S)
        async with patient as rest:
            assert (await rest.get("/healthz")).status_code == 200
            assert (await rest.get("/v1/models/u2i")).status_code == 401
            with pytest.raises(httpx.HTTPError):
                async with httpx.AsyncClient(timeout=PATIENCE_S) as plain:
                    await plain.get(addresses.rest.replace("https", "http") + "/healthz")
        credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
        async with grpc.aio.secure_channel(addresses.grpc, credentials) as channel:
            for method in METHODS:
                await check_method(channel, method)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(server, PATIENCE_S)

    asyncio.run(test())


async def check_method(channel: Any, method: str) -> None:
    """Ask without a token, and with each."""
    call = channel.unary_unary(f"/tensorflow.serving.{method}")

    async def ask(token: str | None) -> grpc.StatusCode:
        metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        try:
            await call(b"", metadata=metadata, timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    for token in (None, "the token of nobody", "a token of the past"):
        assert await ask(token) == grpc.StatusCode.UNAUTHENTICATED, method
    needed = "admin" if method.endswith("HandleReloadConfigRequest") else "read"
    for right in RIGHTS:
        code = await ask(f"the token of {right}")
        assert (code == grpc.StatusCode.PERMISSION_DENIED) == (right != needed), (method, right)
        assert code != grpc.StatusCode.UNAUTHENTICATED


def test_a_certificate_that_cannot_be_read_is_an_error_that_names_it(
    published: Path, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_text("none")
    settings = ServerSettings(
        port=0, grpc_port=0, tls_certificate=tmp_path / "none.pem", tls_key=tmp_path / "key.pem"
    )
    with pytest.raises(ConfigError, match=r"TLS: expected a certificate and its key.*none\.pem"):
        asyncio.run(serve(published, settings=settings, journal=tmp_path / "journal"))


def test_changes_have_a_port_of_their_own_if_it_is_asked_for(
    published: Path, tmp_path: Path
) -> None:
    async def test() -> None:
        found: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
        settings = ServerSettings(port=0, grpc_port=0, write_port=0)
        server = asyncio.create_task(
            serve(published, settings=settings, journal=tmp_path, ready=found.set_result)
        )
        addresses = await asyncio.wait_for(found, PATIENCE_S)
        assert addresses.writes not in {"", addresses.rest}
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            while (await client.get(f"{addresses.writes}/readyz")).status_code != 200:
                await asyncio.sleep(0.02)
            body = {"items": [{"item_id": "fresh"}]}
            for method, path in (
                *(("POST", "/v1/items"), ("POST", "/V1/USERS"), ("POST", "/v1/items/delete")),
                *(("DELETE", "/v1/items/item%203"), ("PUT", "/v1/items")),
            ):
                refused = await client.request(method, addresses.rest + path, json=body)
                assert refused.status_code == 403, (method, path)
                assert "--write-port" in refused.json()["error"]["message"]
            put = await client.post(f"{addresses.writes}/v1/items", json=body)
            assert put.json()["inserted"] == 1
            shown = await client.get(f"{addresses.rest}/v1/items/fresh")
            assert shown.status_code == 200
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(server, PATIENCE_S)

    asyncio.run(test())
