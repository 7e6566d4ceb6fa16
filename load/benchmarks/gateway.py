"""The fast gateway with the floors' routes beside the steps': both are measured in the same processes.

Run as ``python -m benchmarks.gateway`` with the environment of the fast gateway.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from encore_stack.deployment.template import Template
from fast_gateway.gateway import Gateway, StartResponse
from fast_gateway.settings import read_settings, read_template

FLOORS = Path(__file__).parent / "floors" / "template.yaml"


class StepsAndFloors:
    """A WSGI application: ``/floors/…`` and, for every other path, the template's routes."""

    def __init__(self) -> None:
        self._steps = Gateway(read_template())
        self._floors = Gateway(Template(FLOORS, {}, {}, "floors"))

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        gateway = self._floors if environ["PATH_INFO"].startswith("/floors/") else self._steps
        return gateway(environ, start_response)


def main() -> int:
    from fast_gateway.__main__ import serve

    serve(read_settings(), "benchmarks.wsgi:app")
    return 0


if __name__ == "__main__":
    sys.exit(main())
