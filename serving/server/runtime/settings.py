"""ServerSettings: where the server listens, and its limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

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
    read_only: bool = False
    """Whether changes are refused; the journal is then read, and never written."""
    max_k: PositiveInt = 1000
    """The largest number of results a source."""
    max_batch: PositiveInt = 1024
    """The most sources in one request, and in one batch of requests."""
    max_list: PositiveInt = 4096
    """The longest list of one source, such as a history; a batch is as wide as its longest."""
    max_body_bytes: PositiveInt = 16 * MIB
    """The largest body of a request, in bytes."""
    max_queue: PositiveInt = 4096
    """The most sources that wait for their answer; a request above it is refused at once."""
    timeout_s: PositiveFloat = 10.0
    """How long a request may take, waiting included."""
    poll_s: PositiveFloat = 1.0
    """How often to look for a new current version."""
    shutdown_s: NonNegativeFloat = 10.0
    """How long requests in flight may still take once the server is told to stop."""
