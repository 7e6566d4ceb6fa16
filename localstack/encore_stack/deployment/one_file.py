"""Functions of one file, for measurements and tests of the emulator itself."""

import io
import zipfile
from typing import Any

from encore_stack.deployment.functions import wait_updated

ROLE = "arn:aws:iam::000000000000:role/one-file"


def zipped(source: str) -> bytes:
    """The archive of a function whose app.py is ``source``."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("app.py", source)
    return archive.getvalue()


def create_function(client: Any, name: str, source: str, **configuration: Any) -> str:
    """Its ARN, once it can be called; ``handler`` of the source is called. Raises DeployError."""
    arn: str = client.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="app.handler",
        Role=ROLE,
        Code={"ZipFile": zipped(source)},
        **configuration,
    )["FunctionArn"]
    wait_updated(client, name)
    return arn
