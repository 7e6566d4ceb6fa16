"""CloudFormation stacks in LocalStack: create, update, and clear away what a failed one leaves.

boto3 with a short waiter takes a quarter of the time of the AWS CLI.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from encore_stack.deployment.common import DeployError, Say
from encore_stack.deployment.target import API_ID, Target
from encore_stack.deployment.template import Json, Template

_TIMEOUT_S = 120.0
_POLL_S = 0.2
_COMPLETE = ("CREATE_COMPLETE", "UPDATE_COMPLETE")


def _stack(cloudformation: Any, name: str) -> Json | None:
    try:
        stack: Json = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return None if stack["StackStatus"] == "DELETE_COMPLETE" else stack


def is_broken(cloudformation: Any, name: str) -> bool:
    """Whether an earlier deployment failed; half-made functions stay behind even when such a stack is deleted."""
    stack = _stack(cloudformation, name)
    return stack is not None and (
        stack["StackStatus"] not in _COMPLETE or bool(_failed_resources(cloudformation, name))
    )


def clear_away(target: Target, cloudformation: Any, template: Template) -> None:
    """Deletes the stack and then, by name, what LocalStack leaves of one that failed: the next one would meet it.

    Raises DeployError.
    """
    _delete(cloudformation, target.stack_name)
    functions, logs, apis = target.client("lambda"), target.client("logs"), target.client("apigateway")
    for function in template.functions:
        _unless_absent(functions.delete_function, FunctionName=function.function_name)
        _unless_absent(logs.delete_log_group, logGroupName=f"/aws/lambda/{function.function_name}")
    _unless_absent(apis.delete_rest_api, restApiId=API_ID)
    # Functions vanish half a second after they were deleted.
    deadline = time.monotonic() + 10
    while functions.list_functions()["Functions"] and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for _ in range(3):
        if _delete(cloudformation, target.stack_name) is None:
            return
    raise DeployError(
        "LocalStack cannot forget the failed stack: `scripts/stack stop localstack`, start it, deploy again"
    )


def _delete(cloudformation: Any, name: str) -> Json | None:
    if _stack(cloudformation, name) is None:
        return None
    cloudformation.delete_stack(StackName=name)
    return _wait(cloudformation, name, lambda stack: stack is None or not _in_progress(stack))


def _unless_absent(call: Callable[..., Any], **arguments: str) -> None:
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ResourceNotFoundException", "NotFoundException"):
            raise


def _in_progress(stack: Json) -> bool:
    return str(stack["StackStatus"]).endswith("_IN_PROGRESS")


def apply(cloudformation: Any, name: str, body: Json, parameters: Mapping[str, str], say: Say) -> None:
    """Creates or updates the stack and waits for it. Raises DeployError with the resources that failed."""
    stack = _stack(cloudformation, name)
    say(f"{'updating' if stack else 'creating'} CloudFormation stack {name}")
    action = cloudformation.update_stack if stack else cloudformation.create_stack
    action(
        StackName=name,
        TemplateBody=json.dumps(body, separators=(",", ":")),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    done = _wait(cloudformation, name, lambda present: present is None or not _in_progress(present))
    # LocalStack may say UPDATE_COMPLETE though a resource failed: look at each.
    failed = _failed_resources(cloudformation, name) if done else ["  the stack is gone"]
    if failed or done is None or done["StackStatus"] not in _COMPLETE:
        status = f"{done['StackStatus']} {done.get('StackStatusReason', '')}" if done else ""
        raise DeployError("\n".join([f"CloudFormation stack {name} failed: {status}".rstrip(), *failed]))


def _failed_resources(cloudformation: Any, name: str) -> list[str]:
    return [
        f"  {each['LogicalResourceId']} ({each['ResourceType']}): {each.get('ResourceStatusReason', 'no reason given')}"
        for each in cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        if each["ResourceStatus"].endswith("FAILED")
    ]


def _wait(cloudformation: Any, name: str, is_done: Callable[[Json | None], bool]) -> Json | None:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        stack = _stack(cloudformation, name)
        if is_done(stack):
            return stack
        time.sleep(_POLL_S)
    raise DeployError(f"stack {name} is not ready after {_TIMEOUT_S:.0f} s")
