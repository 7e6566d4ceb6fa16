"""Simulated payment gateways, as processes of a test's own."""

import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from encore_stack.instance import PROJECT_DIR


@dataclass
class SimulatedGateway:
    """A gateway process of these tests' own: the audit compares its book with these tests' database alone."""

    url: str
    panel_url: str
    panel: httpx.Client

    def faults(self, **faults: object) -> None:
        self.panel.put("_faults", json=faults).raise_for_status()

    def well(self) -> None:
        self.panel.delete("_faults").raise_for_status()

    def charged(self, order_id: str) -> int:
        """What the book holds for an order: charges less refunds."""
        entries = self.panel.get("_book", params={"order_id": order_id}).json()["entries"]
        return sum(entry["amount"] if entry["kind"] == "charge" else -entry["amount"] for entry in entries)


def start_gateway(processes: ExitStack, name: str, port: int, book: Path) -> SimulatedGateway:
    command = [sys.executable, "-m", "payment_gateways", "--name", name, "--port", str(port), "--book", str(book)]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(PROJECT_DIR / "localstack")}, stdout=subprocess.PIPE, text=True
    )
    processes.callback(process.wait, 10)
    processes.callback(process.terminate)
    assert process.stdout is not None
    listening = httpx.Response(200, text=process.stdout.readline()).json()
    # It has more to say, of each fault that is set; were nobody to read, the pipe would fill and it would hang.
    threading.Thread(target=process.stdout.read, daemon=True).start()
    # One client: each costs an SSL context, and some tests change the faults hundreds of times.
    panel = processes.enter_context(httpx.Client(base_url=listening["panel_url"], trust_env=False))
    return SimulatedGateway(listening["url"], listening["panel_url"], panel)
