"""Deploys template.yaml to LocalStack: package, upload, create or update, wait, start the background loops.

What is uploaded is named by its content's hash, and what was deployed is noted beside it, so a deployment that changes
nothing ends before CloudFormation is asked. One that changes only code goes past CloudFormation (as `sam sync --code`
does): LocalStack's engine updates every function when one has changed, a second each. The next change of the template
puts CloudFormation right again.
"""

import copy
import fcntl
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from encore_stack.deployment import cloudformation
from encore_stack.deployment.common import Say
from encore_stack.deployment.functions import reserve_concurrency, start_background_loops, update_code
from encore_stack.deployment.packages import BUCKET, Package, make_packages, upload
from encore_stack.deployment.target import Target, target_of
from encore_stack.deployment.template import Json, Template, TemplateError
from encore_stack.instance import Instance
from encore_stack.parts.localstack import is_hot, remember_deployment, remember_hot

_SECRET_NAME = "encore"  # noqa: S105 (a name)
_DEPLOYED_KEY = "deployed.json"


def deploy_instance(instance: Instance, say: Say, *, hot: bool | None = None) -> str:
    """Deploy, start the background loops, remember that it is done; returns the API's URL. One at a time.

    `hot`: run the files as they are saved (True), run archives of them (False), as the last time (None).
    Raises what ``deploy`` raises.
    """
    with (instance.run_dir / "deploy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if hot is not None:
            remember_hot(instance, hot)
        target = target_of(instance, hot=is_hot(instance))
        api_url = deploy(target, say)
        loops = start_background_loops(target)
        say(f"started {len(loops)} background loops")
        remember_deployment(instance, api_url)
    return api_url


def deploy(target: Target, say: Say = print) -> str:
    """Brings the deployed stack to what the project says; returns the API's URL.

    Raises TemplateError, DeployError when a resource fails, subprocess.CalledProcessError when the runtime layer cannot
    be built.
    """
    started = time.monotonic()
    parameters = _parameters(target)
    template = Template(target.project_dir / "template.yaml", parameters, target.secrets, target.stack_name)
    _check_code(template)
    packages = make_packages(template, target, say)
    wanted: Json = {
        "template": _digest([_packaged_body(template, {}), parameters]),
        "packages": {logical_id: f"{each.bucket}/{each.key}" for logical_id, each in packages.items()},
    }
    s3 = target.client("s3")
    deployed = _read_deployed(s3)
    if deployed == wanted:
        say(f"deployed already, nothing changed ({time.monotonic() - started:.1f} s)")
        return target.api_url
    _put_secret(target)
    upload(s3, packages.values())
    s3.delete_object(Bucket=BUCKET, Key=_DEPLOYED_KEY)  # until this deployment is known to be good
    if deployed and deployed["template"] == wanted["template"]:
        changed = {name for name, key in wanted["packages"].items() if deployed["packages"].get(name) != key}
        say(f"updating the code of {', '.join(sorted(changed))}")
        update_code(target, template, packages, changed)
    else:
        _apply_template(target, template, _packaged_body(template, packages), parameters, say)
    s3.put_object(Bucket=BUCKET, Key=_DEPLOYED_KEY, Body=json.dumps(wanted).encode())
    seconds = time.monotonic() - started
    say(f"deployed {len(template.functions)} functions, {len(template.routes)} routes ({seconds:.1f} s)")
    return target.api_url


def _check_code(template: Template) -> None:
    """LocalStack takes a function without code, and only its calls fail. Raises TemplateError."""
    for function in template.functions:
        if not function.handler_file.is_file():
            file = function.handler_file.relative_to(template.path.parent)
            raise TemplateError(f"{function.logical_id} in template.yaml runs {file}, which is not there")


def _parameters(target: Target) -> dict[str, str]:
    return {
        **target.parameters,
        "Deployment": "local",
        "SecretName": _SECRET_NAME,
        "SecretVersionId": _secret_version(target.secrets),
    }


def _apply_template(target: Target, template: Template, body: Json, parameters: Mapping[str, str], say: Say) -> None:
    client = target.client("cloudformation")
    if cloudformation.is_broken(client, target.stack_name):
        say("clearing away what a failed deployment left: its stack cannot be updated")
        cloudformation.clear_away(target, client, template)
    cloudformation.apply(client, target.stack_name, body, parameters, say)
    reserve_concurrency(target, template)


def _packaged_body(template: Template, packages: Mapping[str, Package]) -> Json:
    """The template with each package's place in S3; without packages, what is left when code does not count."""
    body = copy.deepcopy(template.body)
    for logical_id, package in packages.items():
        resource = body["Resources"][logical_id]
        uri = "ContentUri" if resource["Type"].endswith("LayerVersion") else "CodeUri"
        resource["Properties"][uri] = {"Bucket": package.bucket, "Key": package.key}
        resource.pop("Metadata", None)
    return body


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read_deployed(s3: Any) -> Json | None:
    """What was deployed last, noted inside LocalStack: forgotten when LocalStack forgets the functions."""
    try:
        noted: Json = json.load(s3.get_object(Bucket=BUCKET, Key=_DEPLOYED_KEY)["Body"])
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchBucket", "NoSuchKey"):
            return None
        raise
    return noted


# ---- the secret ----


def _secret_version(secrets: Mapping[str, str]) -> str:
    """The same values are the same version: functions get new ones exactly when they changed."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(dict(secrets), sort_keys=True)))


def _put_secret(target: Target) -> None:
    client = target.client("secretsmanager")
    version, text = _secret_version(target.secrets), json.dumps(dict(target.secrets))
    try:
        client.create_secret(Name=_SECRET_NAME, ClientRequestToken=version, SecretString=text)
    except client.exceptions.ResourceExistsException:
        client.put_secret_value(SecretId=_SECRET_NAME, ClientRequestToken=version, SecretString=text)
