"""Twisted formats a line of an access log for each request, in the network thread, and LocalStack throws it away."""

REPLACES = ("rolo.serving.twisted:TwistedGateway.log",)


def apply() -> None:
    from rolo.serving.twisted import TwistedGateway

    def log(self: object, request: object) -> None:
        """Nobody reads it."""

    TwistedGateway.log = log
