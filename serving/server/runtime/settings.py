"""ServerSettings: where the server listens, and its limits."""

from __future__ import annotations

from dataclasses import field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from towers.errors import ConfigError
from towers.typed import STRICT

Port = Annotated[int, Field(ge=0, le=65535)]

MIB = 2**20


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ServerSettings:
    """What the operator decides. The limits keep one client from taking all of the server."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 and :: are all of the machine's."""
    port: Port = 8501
    """REST: the retrieval API and TF Serving's; 0 takes a free one."""
    grpc_port: Port = 8500
    """TF Serving's gRPC; 0 takes a free one."""
    write_port: Port | None = None
    """A REST port of its own for changes of users and items, which `port` then refuses; 0 takes a
    free one. None: they come to `port`."""
    tls_certificate: Path | None = None
    """The certificate (PEM, with those that sign it) for REST and gRPC; None: no TLS."""
    tls_key: Path | None = None
    """The private key of the certificate (PEM)."""
    tokens: Path | None = None
    """The file of the tokens of those who may ask; see `serving.server.access.tokens`."""
    tokens_text: str | None = field(default=None, repr=False)
    """The same as text, from the environment."""
    open_to_all: bool = False
    """Whether it may listen beyond loopback without tokens."""
    hosts: tuple[str, ...] = ()
    """Names that the server answers to over HTTP, beside its address. On loopback no other does;
    elsewhere any does unless some are named."""
    origins: tuple[str, ...] = ()
    """Pages of other servers that may ask, such as https://shop.example."""
    read_only: bool = False
    """Whether changes are refused; the journal is then read, and never written."""
    workers: PositiveInt = 1
    """Processes that answer on the same ports. Each has the version in memory, and the limits."""
    access_log: bool = False
    """Whether each request has a line in the log."""
    max_k: PositiveInt = 1000
    """The largest number of results a source."""
    max_batch: PositiveInt = 1024
    """The most sources in one request, and in one batch of requests."""
    max_list: PositiveInt = 4096
    """The longest list of one source, such as a history; a batch is as wide as its longest."""
    max_cells: PositiveInt = 2**18
    """The most values of a feature in one request: its sources times the longest list."""
    max_results: PositiveInt = 100_000
    """The most results of one request: its sources times k."""
    max_body_bytes: PositiveInt = 16 * MIB
    """The largest body of a request, in bytes."""
    max_queue: PositiveInt = 4096
    """The most sources that wait for their answer; a request above it is refused at once."""
    max_unknown: PositiveInt = 100_000
    """The most ids of each side that are remembered as taken out though they are not there."""
    max_connections: PositiveInt = 1000
    """The most connections to REST."""
    max_pipelined: PositiveInt = 64
    """The most requests that wait in one connection."""
    max_header_bytes: PositiveInt = 64 * 2**10
    """The largest head of a request: its first line and its headers, in bytes."""
    header_s: PositiveFloat = 10.0
    """How long a head may take to come."""
    idle_s: PositiveInt = 75
    """How long an idle connection stays open: longer than clients and balancers keep theirs, or
    they would ask on one that has just been closed."""
    timeout_s: PositiveFloat = 10.0
    """How long a request may take, waiting included."""
    poll_s: PositiveFloat = 1.0
    """How often to look for a new current version."""
    memory_bytes: PositiveInt | None = None
    """The most memory that the process may have; a version that would need more is refused."""
    shutdown_s: NonNegativeFloat = 10.0
    """How long requests in flight may still take once the server is told to stop."""

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("TLS: expected a certificate and its key, received one of them")
        has_tokens = self.tokens is not None or bool(self.tokens_text)
        if not (is_loopback(self.host) or has_tokens or self.open_to_all):
            raise ConfigError(
                f"host: expected tokens where the server listens beyond loopback ({self.host}), "
                "received none; give --tokens or FM_RECALL_TOKENS, or say --without-tokens"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
