"""Parts that are one Python module each: the payment gateways, the event-source poller, the fast gateway."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from encore_stack.instance import BROKERS, POSTGRES_SERVERS, REDIS_PARTS, Instance, function_environment
from encore_stack.parts.base import Part, Unhealthy, probe_http, python

_HEARTBEAT_MAX_AGE_S = 10.0


class PaymentGateway(Part):
    """A simulated payment firm with its book on disk."""

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, instance: Instance) -> None:
        instance.data_dir(self.name).mkdir(parents=True, exist_ok=True)

    def command(self, instance: Instance) -> list[str]:
        book = str(instance.data_dir(self.name))
        port = str(instance.ports[self.name])
        return [python(instance), "-m", "payment_gateways", "--name", self.name, "--port", port, "--book", book]

    def probe(self, instance: Instance) -> None:
        try:
            probe_http(instance.ports[self.name], "/healthz")
        except Unhealthy as fault:
            panel = fault_panel(instance, self.name)
            if self._refuses(panel):
                raise Unhealthy(f"refuses connections, as it was told: curl -X DELETE {panel} heals it") from fault
            raise

    @staticmethod
    def _refuses(panel: str) -> bool:
        """Whether its fault panel says so; a firm that is not up says nothing."""
        port = urlsplit(panel).port
        try:
            return bool(port and json.loads(probe_http(port, "/_faults"))["mode"] == "refuse")
        except (Unhealthy, ValueError, KeyError):
            return False


def fault_panel(instance: Instance, firm: str) -> str:
    """The URL of a firm's fault panel, which answers also while the firm refuses connections; empty before it ran."""
    file = instance.data_dir(firm) / f"{firm}.panel"
    return f"{file.read_text().strip()}/_faults" if file.exists() else ""


class Poller(Part):
    """Reads Kafka and invokes the consumer functions, as the MSK event source does."""

    name = "poller"
    needs = (*BROKERS, "localstack")

    def command(self, instance: Instance) -> list[str]:
        return [python(instance), "-m", "event_source"]

    def prepare(self, instance: Instance) -> None:
        self._heartbeat(instance).unlink(missing_ok=True)

    def environment(self, instance: Instance) -> Mapping[str, str]:
        return {
            **function_environment(instance),
            "ENCORE_LOCALSTACK_URL": instance.url("localstack"),
            "ENCORE_RUN_DIR": str(instance.run_dir),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def probe(self, instance: Instance) -> None:
        try:
            age_s = time.time() - self._heartbeat(instance).stat().st_mtime
        except FileNotFoundError as error:
            raise Unhealthy("no heartbeat yet") from error
        if age_s > _HEARTBEAT_MAX_AGE_S:
            raise Unhealthy(f"last heartbeat {age_s:.0f} s ago")

    @staticmethod
    def _heartbeat(instance: Instance) -> Path:
        return instance.run_dir / "poller.json"


class FastGateway(Part):
    """The same functions behind a WSGI server, for measuring the bundle instead of the emulator."""

    name = "gateway"
    needs = (*POSTGRES_SERVERS, *REDIS_PARTS)

    def command(self, instance: Instance) -> list[str]:
        run = [python(instance), "-m"]
        return [*run, "encore_stack.fresh_start", self.name, *run, "fast_gateway"]

    def environment(self, instance: Instance) -> Mapping[str, str]:
        return {
            **function_environment(instance),
            "ENCORE_GATEWAY_PORT": str(instance.ports[self.name]),
            # No line and no metric for each request: this part is there to measure the bundle.
            "POWERTOOLS_SERVICE_NAME": "fast_gateway",
            "POWERTOOLS_LOG_LEVEL": "WARNING",
            "POWERTOOLS_METRICS_DISABLED": "true",
            "ENCORE_RUN_DIR": str(instance.run_dir),
        }

    def probe(self, instance: Instance) -> None:
        probe_http(instance.ports[self.name], "/healthz")
