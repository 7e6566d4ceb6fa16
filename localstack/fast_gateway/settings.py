"""What the gateway is told by the environment and the template."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from encore_stack.deployment.template import Template


@dataclass(frozen=True)
class Settings:
    port: int
    workers: int
    threads: int
    """In each worker at most: so many requests at once, those included that wait for a payment firm."""
    connections: int
    """In each worker to each Postgres server: its threads share them, a statement at a time."""


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Raises ValueError for what is no positive number."""
    return Settings(
        port=_positive(environ, "ENCORE_GATEWAY_PORT", 8000),
        workers=_positive(environ, "ENCORE_GATEWAY_WORKERS", 2),
        threads=_positive(environ, "ENCORE_GATEWAY_THREADS", 512),
        connections=_positive(environ, "ENCORE_GATEWAY_CONNECTIONS", 16),
    )


def read_template(environ: Mapping[str, str] = os.environ) -> Template:
    """The project's template, its parameters filled in from the environment. Raises TemplateError."""
    return Template.from_environment(environ)


def _positive(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{name} must be a positive whole number, is {text!r}")
    return int(text)
