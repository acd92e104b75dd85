"""CheckToken: lets a request over gRPC come to its method only if its sender may ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from serving.server.access.tokens import Right, Tokens
from serving.server.errors import status_of
from towers.errors import RecallError

OPEN = "/grpc.health.v1.Health/"
ADMIN = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


class CheckToken(grpc.aio.ServerInterceptor):
    """The same tokens as over HTTP, in the metadatum `authorization`."""

    def __init__(self, tokens: Tokens) -> None:
        """Ask for one of these tokens."""
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Check a request before its method is looked up."""
        method: str = details.method
        if method.startswith(OPEN):
            return await continuation(details)
        right: Right = "admin" if method == ADMIN else "read"
        shown = dict(details.invocation_metadata or ()).get("authorization")
        try:
            self._tokens.check(shown, right)
        except RecallError as error:
            return _refusal(error)
        return await continuation(details)


def _refusal(error: RecallError) -> grpc.RpcMethodHandler:
    """A method that ends with the status of an error."""

    async def refuse(request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(status_of(error).grpc, str(error))

    return grpc.unary_unary_rpc_method_handler(refuse)
