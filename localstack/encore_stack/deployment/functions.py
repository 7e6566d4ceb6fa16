"""What goes past CloudFormation: code alone, reserved concurrency, the background loops."""

import time
from collections.abc import Mapping
from typing import Any

from encore_stack.deployment.common import DeployError, in_parallel
from encore_stack.deployment.packages import Package
from encore_stack.deployment.target import Target
from encore_stack.deployment.template import Function, Template

_TIMEOUT_S = 120.0
_POLL_S = 0.05


def update_code(target: Target, template: Template, packages: Mapping[str, Package], changed: set[str]) -> None:
    """Gives the functions new code and new versions of the layers that `changed` names by logical id.

    Raises DeployError.
    """
    client = target.client("lambda")
    new_layers = _publish_layers(client, template, packages, changed)

    def update(function: Function) -> None:
        name = function.function_name
        if function.logical_id in changed:
            package = packages[function.logical_id]
            client.update_function_code(FunctionName=name, S3Bucket=package.bucket, S3Key=package.key)
            wait_updated(client, name)
        if new_layers:
            present = client.get_function_configuration(FunctionName=name).get("Layers", [])
            arns = [new_layers.get(each["Arn"].rpartition(":")[0], each["Arn"]) for each in present]
            client.update_function_configuration(FunctionName=name, Layers=arns)
            wait_updated(client, name)

    in_parallel(update, [each for each in template.functions if new_layers or each.logical_id in changed])


def _publish_layers(
    client: Any, template: Template, packages: Mapping[str, Package], changed: set[str]
) -> dict[str, str]:
    """The changed layers' ARNs, each with that of its new version."""
    published = [
        client.publish_layer_version(
            LayerName=_layer_name(template, layer.logical_id),
            Content={"S3Bucket": packages[layer.logical_id].bucket, "S3Key": packages[layer.logical_id].key},
            CompatibleRuntimes=["python3.13"],
        )
        for layer in template.layers
        if layer.logical_id in changed
    ]
    return {each["LayerArn"]: each["LayerVersionArn"] for each in published}


def _layer_name(template: Template, logical_id: str) -> str:
    return str(template.resolve(template.body["Resources"][logical_id]["Properties"]["LayerName"]))


def wait_updated(client: Any, function_name: str) -> None:
    """Return when the function is made or updated and can be called. Raises DeployError."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        configuration = client.get_function_configuration(FunctionName=function_name)
        if configuration.get("LastUpdateStatus") == "Failed":
            raise DeployError(f"{function_name}: {configuration.get('LastUpdateStatusReason')}")
        if configuration.get("LastUpdateStatus") != "InProgress" and configuration["State"] == "Active":
            return
        time.sleep(_POLL_S)
    raise DeployError(f"{function_name} is not updated after {_TIMEOUT_S:.0f} s")


def reserve_concurrency(target: Target, template: Template) -> None:
    """LocalStack ignores ReservedConcurrentExecutions in a template."""
    client = target.client("lambda")
    reserved: list[Function] = [each for each in template.functions if each.reserved_concurrency is not None]
    in_parallel(
        lambda each: client.put_function_concurrency(
            FunctionName=each.function_name, ReservedConcurrentExecutions=each.reserved_concurrency
        ),
        reserved,
    )


def start_background_loops(target: Target) -> list[str]:
    """Starts each every_minute_ function now instead of at the next full minute; returns their names."""
    template = Template(target.project_dir / "template.yaml", target.parameters, target.secrets, target.stack_name)
    loops = [function.function_name for function in template.functions if function.schedules]
    client = target.client("lambda")
    for name in loops:
        client.invoke(FunctionName=name, InvocationType="Event", Payload=b"{}")
    return loops
