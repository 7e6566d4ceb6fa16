"""What the poller is told: its mappings from the template, its addresses from the environment."""

import os
from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from encore_stack.deployment.template import Template, TemplateError

_PARTITIONS_PER_POLLER = 3
"""AWS's pollers have partitions of their own, so there may be as many as those; ours takes from all of them, and a
third of that is what the emulator's environments (8) bear: four at once for twelve partitions."""


class BadSettings(Exception):
    """The environment or the template lacks something; the message lists everything that is wrong."""


@dataclass(frozen=True)
class Mapping:
    """One event-source mapping of the template."""

    function_name: str
    """The deployed name, with the stack's."""
    topics: tuple[str, ...]
    consumer_group: str
    batch_size: int = 100
    batching_window_s: float = 0.5
    starting_position: str = "TRIM_HORIZON"
    partial_batch_failures: bool = True
    bisect_on_error: bool = False
    pollers_max: int = 4
    """Invocations at once, over all partitions."""
    timeout_s: float = 60
    """The function's own time limit; an invocation is given a little more."""


@dataclass(frozen=True)
class Settings:
    bootstrap_servers: str
    localstack_url: str
    stack_name: str
    region: str
    run_dir: Path | None
    mappings: Sequence[Mapping]


def read_settings(environ: MappingOf[str, str] = os.environ) -> Settings:
    """Raises BadSettings."""
    faults = [
        f"{name} is not set"
        for name in ("ENCORE_KAFKA_BOOTSTRAP_SERVERS", "ENCORE_LOCALSTACK_URL")
        if not environ.get(name)
    ]
    url = environ.get("ENCORE_LOCALSTACK_URL", "")
    if url and urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
        faults.append(f"ENCORE_LOCALSTACK_URL must be on loopback, is {url}")
    if faults:
        raise BadSettings("; ".join(faults))
    stack_name = environ.get("ENCORE_STACK_NAME", "encore")
    run_dir = environ.get("ENCORE_RUN_DIR")
    return Settings(
        bootstrap_servers=environ["ENCORE_KAFKA_BOOTSTRAP_SERVERS"],
        localstack_url=url.rstrip("/"),
        stack_name=stack_name,
        region=environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        run_dir=Path(run_dir) if run_dir else None,
        mappings=_mappings_of_template(environ),
    )


def invocations_at_once(pollers_max: int) -> int:
    """Of one mapping, for as many pollers as its template allows on AWS: at most one a partition."""
    return max(1, pollers_max // _PARTITIONS_PER_POLLER)


def _mappings_of_template(environ: MappingOf[str, str]) -> Sequence[Mapping]:
    try:
        template = Template.from_environment(environ)
        mappings = [
            Mapping(
                function_name=template.function(source.function).function_name,
                topics=source.topics,
                consumer_group=source.consumer_group,
                batch_size=source.batch_size,
                batching_window_s=source.batch_window_s,
                starting_position=source.starting_position,
                partial_batch_failures=source.partial_batch_failures,
                pollers_max=invocations_at_once(source.pollers_max),
                timeout_s=template.function(source.function).timeout_s,
            )
            for source in template.kafka_sources
        ]
    except TemplateError as e:
        raise BadSettings(str(e)) from e
    if not mappings:
        raise BadSettings("the template has no Kafka event source")
    return mappings
