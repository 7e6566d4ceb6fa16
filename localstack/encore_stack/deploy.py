"""Deploys template.yaml to LocalStack through CloudFormation: package, upload, create or update, wait.

What is uploaded is named by its content's hash, and what was deployed is noted beside it, so a deployment that changes
nothing ends before CloudFormation is asked. One that changes only code goes past CloudFormation (as `sam sync --code`
does): LocalStack's engine updates every function when one has changed, a second each. The next change of the template
puts CloudFormation right again. boto3 with a short waiter takes a quarter of the time of the AWS CLI.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from .template import Function, Layer, Template

STACK_NAME = "encore"
API_ID = "encore"
STAGE = "v1"
REGION = "us-east-1"
BUCKET = "encore-artifacts"
SECRET_NAME = "encore"  # noqa: S105 (a name)
DEPLOYED_KEY = "deployed.json"
DEPLOY_TIMEOUT_S = 120.0
POLL_S = 0.2
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the same content is the same archive
LEFT_OUT = ("__pycache__", ".pytest_cache", ".mypy_cache", ".DS_Store")

Json = dict[str, Any]
Say = Callable[[str], None]


class DeployError(Exception):
    """The deployment failed; the message names the resources and their reasons."""


@dataclass(frozen=True)
class Target:
    """Where to deploy, with what values.

    `parameters` are template.yaml's; `secrets` the JSON keys of the secret; `tools_dir` keeps the built runtime layer;
    `uv` builds it.
    """

    endpoint_url: str
    project_dir: Path
    tools_dir: Path
    parameters: Mapping[str, str]
    secrets: Mapping[str, str]
    uv: str = "uv"
    stack_name: str = STACK_NAME

    def client(self, service: str) -> Any:
        """A boto3 client of this LocalStack."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 (LocalStack takes any)
            config=Config(
                retries={"total_max_attempts": 2, "mode": "standard"},
                connect_timeout=5,
                read_timeout=60,
                s3={"addressing_style": "path"},
                max_pool_connections=16,
            ),
        )

    @property
    def api_url(self) -> str:
        """Where the deployed API answers."""
        return f"{self.endpoint_url}/_aws/execute-api/{API_ID}/{STAGE}"


def deploy(target: Target, say: Say = print) -> str:
    """Brings the deployed stack to what the project says; returns the API's URL.

    Raises DeployError when a resource fails, subprocess.CalledProcessError when the runtime layer cannot be built.
    """
    started = time.monotonic()
    secret_version = _secret_version(target.secrets)
    parameters = {
        **target.parameters,
        "Deployment": "local",
        "SecretName": SECRET_NAME,
        "SecretVersionId": secret_version,
    }
    template = Template(target.project_dir / "template.yaml", parameters, target.secrets, target.stack_name)
    packages = _packages(template, target, say)
    body = _packaged_body(template, packages)
    keys = {logical_id: package.key for logical_id, package in packages.items()}
    wanted: Json = {
        "template": _digest([_packaged_body(template, {}), parameters]),
        "packages": keys,
    }
    s3 = target.client("s3")
    deployed = _read_deployed(s3)
    if deployed == wanted:
        say(f"deployed already, nothing changed ({time.monotonic() - started:.1f} s)")
        return target.api_url
    _put_secret(target, secret_version)
    _upload(s3, packages.values())
    s3.delete_object(Bucket=BUCKET, Key=DEPLOYED_KEY)  # until this deployment is known to be good
    if deployed and deployed["template"] == wanted["template"]:
        changed = {name for name, key in keys.items() if deployed["packages"].get(name) != key}
        say(f"updating the code of {', '.join(sorted(changed))}")
        _update_code(target, template, packages, changed)
    else:
        cloudformation = target.client("cloudformation")
        if _is_broken(cloudformation, target.stack_name):
            say("clearing away what a failed deployment left: its stack cannot be updated")
            _clear_away(target, cloudformation, template)
        _apply(cloudformation, target.stack_name, body, parameters, say)
        _reserve_concurrency(target, template)
    s3.put_object(Bucket=BUCKET, Key=DEPLOYED_KEY, Body=json.dumps(wanted).encode())
    seconds = time.monotonic() - started
    say(f"deployed {len(template.functions)} functions, {len(template.routes)} routes ({seconds:.1f} s)")
    return target.api_url


def start_background_loops(target: Target) -> list[str]:
    """Starts each every_minute_ function now instead of at the next full minute; returns their names."""
    template = Template(target.project_dir / "template.yaml", target.parameters, target.secrets, target.stack_name)
    loops = [function.function_name for function in template.functions if function.schedules]
    client = target.client("lambda")
    for name in loops:
        client.invoke(FunctionName=name, InvocationType="Event", Payload=b"{}")
    return loops


# ---- packages ----


@dataclass(frozen=True)
class _Package:
    sha: str
    content: bytes

    @property
    def key(self) -> str:
        return f"{self.sha}.zip"


def _packages(template: Template, target: Target, say: Say) -> dict[str, _Package]:
    """Logical id → archive, for every function and layer."""
    packages = {each.logical_id: _zip(_files(each.code_dir)) for each in template.functions}
    for layer in template.layers:
        packages[layer.logical_id] = _layer_package(layer, target, say)
    return packages


def _layer_package(layer: Layer, target: Target, say: Say) -> _Package:
    if layer.build_method == "makefile":
        built = build_runtime_layer(layer.content_dir, target.tools_dir, target.uv, say)
        archive = built.with_suffix(".zip")
        if not archive.is_file():
            package = _zip(_files(built))
            partial = archive.with_suffix(".part")
            partial.write_bytes(package.content)
            partial.rename(archive)
        content = archive.read_bytes()
        return _Package(hashlib.sha256(content).hexdigest(), content)
    return _zip((Path("python") / name, file) for name, file in _files(layer.content_dir))


def build_runtime_layer(layer_dir: Path, tools_dir: Path, uv: str = "uv", say: Say = print) -> Path:
    """The functions' third-party packages as a layer folder, built once for each content of the lock.

    Returns `<tools>/runtime-layer/<hash>`, which has `python/` in it. The lock is complete, so nothing is resolved.
    """
    lock = layer_dir / "requirements.lock"
    folder = tools_dir / "runtime-layer" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    say("building the runtime layer (once for each lock)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--python", sys.executable, "--python-version", "3.13", "--target", str(partial / "python")]
    try:
        subprocess.run([*command, "--requirement", str(lock)], check=True)
        shutil.rmtree(partial / "python" / "bin", ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _files(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Relative and real path of each file, in a fixed order."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not any(part in LEFT_OUT for part in name.parts) and file.suffix != ".pyc":
            yield name, file


def _zip(files: Iterable[tuple[Path, Path]]) -> _Package:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, file in files:
            entry = zipfile.ZipInfo(name.as_posix(), ZIP_DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    content = buffer.getvalue()
    return _Package(hashlib.sha256(content).hexdigest(), content)


def _packaged_body(template: Template, packages: Mapping[str, _Package]) -> Json:
    """The template with each archive's place in S3; without packages, what is left when code does not count."""
    body = copy.deepcopy(template.body)
    for logical_id, package in packages.items():
        resource = body["Resources"][logical_id]
        uri = "ContentUri" if resource["Type"].endswith("LayerVersion") else "CodeUri"
        resource["Properties"][uri] = {"Bucket": BUCKET, "Key": package.key}
        resource.pop("Metadata", None)
    return body


def _upload(s3: Any, packages: Iterable[_Package]) -> None:
    s3.create_bucket(Bucket=BUCKET)
    there = {each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}
    missing = {package.key: package.content for package in packages if package.key not in there}
    _in_parallel(lambda item: s3.put_object(Bucket=BUCKET, Key=item[0], Body=item[1]), missing.items())


def _in_parallel(call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(call, items))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read_deployed(s3: Any) -> Json | None:
    """What was deployed last, noted inside LocalStack: forgotten when LocalStack forgets the functions."""
    try:
        noted: Json = json.load(s3.get_object(Bucket=BUCKET, Key=DEPLOYED_KEY)["Body"])
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchBucket", "NoSuchKey"):
            return None
        raise
    return noted


# ---- code without CloudFormation ----


def _update_code(target: Target, template: Template, packages: Mapping[str, _Package], changed: set[str]) -> None:
    client = target.client("lambda")
    layers = [layer.logical_id for layer in template.layers if layer.logical_id in changed]
    new_layers = {
        layer: client.publish_layer_version(
            LayerName=_layer_name(template, layer),
            Content={"S3Bucket": BUCKET, "S3Key": packages[layer].key},
            CompatibleRuntimes=["python3.13"],
        )
        for layer in layers
    }

    def update(function: Function) -> None:
        name = function.function_name
        if function.logical_id in changed:
            client.update_function_code(FunctionName=name, S3Bucket=BUCKET, S3Key=packages[function.logical_id].key)
            _wait_updated(client, name)
        if new_layers:
            present = client.get_function_configuration(FunctionName=name).get("Layers", [])
            newest = {each["LayerArn"]: each["LayerVersionArn"] for each in new_layers.values()}
            arns = [newest.get(each["Arn"].rpartition(":")[0], each["Arn"]) for each in present]
            client.update_function_configuration(FunctionName=name, Layers=arns)
            _wait_updated(client, name)

    _in_parallel(update, [each for each in template.functions if new_layers or each.logical_id in changed])


def _layer_name(template: Template, logical_id: str) -> str:
    return str(template.resolve(template.body["Resources"][logical_id]["Properties"]["LayerName"]))


def _wait_updated(client: Any, function_name: str) -> None:
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    while time.monotonic() < deadline:
        configuration = client.get_function_configuration(FunctionName=function_name)
        if configuration.get("LastUpdateStatus") == "Failed":
            raise DeployError(f"{function_name}: {configuration.get('LastUpdateStatusReason')}")
        if configuration.get("LastUpdateStatus") != "InProgress" and configuration["State"] == "Active":
            return
        time.sleep(POLL_S / 4)
    raise DeployError(f"{function_name} is not updated after {DEPLOY_TIMEOUT_S:.0f} s")


# ---- the secret ----


def _secret_version(secrets: Mapping[str, str]) -> str:
    """The same values are the same version: functions get new ones exactly when they changed."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(dict(secrets), sort_keys=True)))


def _put_secret(target: Target, version: str) -> None:
    client = target.client("secretsmanager")
    text = json.dumps(dict(target.secrets))
    try:
        client.create_secret(Name=SECRET_NAME, ClientRequestToken=version, SecretString=text)
    except client.exceptions.ResourceExistsException:
        client.put_secret_value(SecretId=SECRET_NAME, ClientRequestToken=version, SecretString=text)


# ---- CloudFormation ----

_COMPLETE = ("CREATE_COMPLETE", "UPDATE_COMPLETE")


def _stack(cloudformation: Any, name: str) -> Json | None:
    try:
        stack: Json = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return None if stack["StackStatus"] == "DELETE_COMPLETE" else stack


def _is_broken(cloudformation: Any, name: str) -> bool:
    """Whether an earlier deployment failed; half-made functions stay behind even when such a stack is deleted."""
    stack = _stack(cloudformation, name)
    return stack is not None and (
        stack["StackStatus"] not in _COMPLETE or bool(_failed_resources(cloudformation, name))
    )


def _clear_away(target: Target, cloudformation: Any, template: Template) -> None:
    """Deletes the stack and then, by name, what LocalStack leaves of one that failed: the next one would meet it."""
    _delete(cloudformation, target.stack_name)
    functions, logs, apis = target.client("lambda"), target.client("logs"), target.client("apigateway")
    for function in template.functions:
        _unless_absent(functions.delete_function, FunctionName=function.function_name)
        _unless_absent(logs.delete_log_group, logGroupName=f"/aws/lambda/{function.function_name}")
    _unless_absent(apis.delete_rest_api, restApiId=API_ID)
    # Functions vanish half a second after they were deleted.
    deadline = time.monotonic() + 10
    while functions.list_functions()["Functions"] and time.monotonic() < deadline:
        time.sleep(POLL_S)
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


def _apply(cloudformation: Any, name: str, body: Json, parameters: Mapping[str, str], say: Say) -> None:
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
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    while time.monotonic() < deadline:
        stack = _stack(cloudformation, name)
        if is_done(stack):
            return stack
        time.sleep(POLL_S)
    raise DeployError(f"stack {name} is not ready after {DEPLOY_TIMEOUT_S:.0f} s")


def _reserve_concurrency(target: Target, template: Template) -> None:
    """LocalStack ignores ReservedConcurrentExecutions in a template."""
    client = target.client("lambda")
    reserved: list[Function] = [each for each in template.functions if each.reserved_concurrency is not None]
    _in_parallel(
        lambda each: client.put_function_concurrency(
            FunctionName=each.function_name, ReservedConcurrentExecutions=each.reserved_concurrency
        ),
        reserved,
    )
