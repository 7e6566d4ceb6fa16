"""The deployment of an instance to its LocalStack, by whoever needs it: scripts/up, or the runner after a restart."""

import fcntl
from collections.abc import Callable

from encore_stack import deploy
from encore_stack.instance import (
    Instance,
    function_environment,
    function_secrets,
)
from encore_stack.parts.localstack import remember_deployment
from encore_stack.ports import HOST


def target_of(instance: Instance) -> deploy.Target:
    """Where and with what values the instance's template is deployed."""
    redis_url = f"redis://{HOST}:{instance.ports['redis']}/0"
    return deploy.Target(
        endpoint_url=instance.url("localstack"),
        project_dir=instance.project_dir,
        tools_dir=instance.tools_dir,
        uv=str(instance.tools_dir / "uv" / "bin" / "uv"),
        secrets=function_secrets(instance),
        parameters={
            "EdgeTrust": function_environment(instance)["ENCORE_EDGE_TRUST"],
            "QueueRedisUrl": redis_url,
            "LocksRedisUrl": redis_url,
            "CacheRedisUrl": redis_url,
            "KafkaBootstrapServers": instance.kafka_bootstrap_servers,
            "ReservationTopic": instance.reservation_topic,
            "DeadLetterTopic": instance.dead_letter_topic,
            "DanalUrl": instance.url("danal"),
            "PaycoUrl": instance.url("payco"),
        },
    )


def deploy_instance(instance: Instance, say: Callable[[str], None]) -> str:
    """Deploy, start the background loops, remember that it is done; returns the API's URL. One at a time.

    Raises what encore_stack.deploy raises.
    """
    with (instance.run_dir / "deploy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = target_of(instance)
        api_url = deploy.deploy(target, say)
        loops = deploy.start_background_loops(target)
        say(f"started {len(loops)} background loops")
        remember_deployment(instance, api_url)
    return api_url
