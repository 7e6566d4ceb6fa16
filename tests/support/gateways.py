"""Simulated payment gateways, as processes of a test's own."""

import os
import subprocess
import sys
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

    def faults(self, **faults: object) -> None:
        httpx.put(f"{self.panel_url}/_faults", json=faults, trust_env=False).raise_for_status()

    def well(self) -> None:
        httpx.delete(f"{self.panel_url}/_faults", trust_env=False).raise_for_status()

    def charged(self, order_id: str) -> int:
        """What the book holds for an order: charges less refunds."""
        entries = httpx.get(f"{self.panel_url}/_book", params={"order_id": order_id}, trust_env=False).json()["entries"]
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
    return SimulatedGateway(listening["url"], listening["panel_url"])
