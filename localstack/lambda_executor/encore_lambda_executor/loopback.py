"""LocalStack's own server, bound to the interface it was told.

LocalStack 4.14.0 gives Twisted the port of GATEWAY_LISTEN but not its host, so it answers on every interface of the
machine, with no password, and runs any code it is handed. The version is pinned, so this cannot drift.
"""

import os
from typing import Any

from localstack import config
from localstack.aws.serving.twisted import TLSMultiplexerFactory
from localstack.runtime.server.twisted import TwistedRuntimeServer
from localstack.services.edge import ROUTER
from rolo import Request, Response
from rolo.gateway import Gateway
from rolo.serving.twisted import TwistedGateway
from twisted.internet import endpoints, reactor, ssl

from .patches import apply_patches, who_answers

PATCHES_PATH = "/_encore/patches"


class LoopbackServer(TwistedRuntimeServer):  # type: ignore[misc]
    """TwistedRuntimeServer that honours the host part of GATEWAY_LISTEN."""

    def __init__(self) -> None:
        super().__init__()
        apply_patches(os.environ)  # here, because the server is made once, before any service is used
        ROUTER.add(PATCHES_PATH, _show_patches, methods=["GET"])

    def register(self, gateway: Gateway, listen: list[Any], ssl_creds: tuple[str, str] | None = None) -> None:
        factory: Any = TwistedGateway(gateway)
        if ssl_creds:
            certificate, key = ssl_creds
            context = ssl.DefaultOpenSSLContextFactory(key, certificate)
            context.getContext().use_certificate_chain_file(certificate)
            factory = TLSMultiplexerFactory(context, False, factory)
        for address in listen:
            endpoint = (
                endpoints.TCP6ServerEndpoint if config.is_ipv6_address(address.host) else endpoints.TCP4ServerEndpoint
            )
            endpoint(reactor, address.port, interface=address.host).listen(factory).addErrback(_port_taken, address)


def _show_patches(request: Request) -> Response:
    """Whose code runs in the place of each speed patch: what the tests rely on, and a look for whoever doubts."""
    return Response.for_json(who_answers())


def _port_taken(failure: Any, address: Any) -> None:
    """Without this LocalStack runs on, deaf, when its port is taken: end, so that the supervisor sees it."""
    print(f"LocalStack cannot listen on {address}: {failure.getErrorMessage()}", flush=True)
    os._exit(98)
