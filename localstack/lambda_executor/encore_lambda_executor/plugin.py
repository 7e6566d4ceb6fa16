"""Entry points. Nothing heavy is imported until LocalStack asks: it scans every plugin at start-up."""

from typing import Any

from localstack.runtime.server.core import RuntimeServerPlugin
from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin


class EncoreRuntimeExecutorPlugin(RuntimeExecutorPlugin):  # type: ignore[misc]
    """Chosen by LAMBDA_RUNTIME_EXECUTOR=encore."""

    name = "encore"

    def load(self, *args: Any, **kwargs: Any) -> Any:
        from .executor import EncoreRuntimeExecutor

        return EncoreRuntimeExecutor


class LoopbackServerPlugin(RuntimeServerPlugin):  # type: ignore[misc]
    """Chosen by GATEWAY_SERVER=encore."""

    name = "encore"

    def load(self, *args: Any, **kwargs: Any) -> Any:
        from .loopback import LoopbackServer

        return LoopbackServer()
