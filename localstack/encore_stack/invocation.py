"""One call of a deployed function through Lambda's Invoke API, as `aws lambda invoke --log-type Tail` makes it."""

import base64
import re
import time
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from encore_stack.functions import DEPLOYED_PREFIX

_ANSWER_S_MAX = 930.0  # Lambda's longest function, and a wait for a free environment
_TAIL_BYTES = 4096
_REPORT = re.compile(r"^REPORT .*\tDuration: (\S+ ms)\t.*Max Memory Used: (\d+ MB)", re.MULTILINE)


class NotInvoked(Exception):
    """The function was not called for certain; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """How a call ended. ``answer`` is decoded JSON; of a function that failed the error, shaped as Lambda's."""

    answer: Any
    is_error: bool
    log_lines: tuple[str, ...]
    """The end of this call's log: Lambda gives its last 4 KB."""
    took_s: float

    @property
    def report(self) -> str:
        """What the function itself took, ``12.30 ms, 34 MB``; empty where the log does not say."""
        found = _REPORT.search("\n".join(self.log_lines))
        return ", ".join(found.groups()) if found else ""


def invoke(localstack_url: str, function: str, event: dict[str, Any]) -> Invocation:
    """Call the function and wait for its end. Raises NotInvoked."""
    # Not boto3, nor the certificates of the world: loading them would take longer than the call. LocalStack checks no
    # signature, it reads the region there.
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request,"
        " SignedHeaders=host, Signature=0",
        "X-Amz-Log-Type": "Tail",
    }
    url = f"{localstack_url}/2015-03-31/functions/{DEPLOYED_PREFIX}{function}/invocations"
    started_s = time.monotonic()
    try:
        timeout = httpx.Timeout(_ANSWER_S_MAX, connect=5)
        with httpx.Client(timeout=timeout, trust_env=False, verify=False) as client:  # noqa: S501 - plain HTTP
            response = client.post(url, content=msgspec.json.encode(event), headers=headers)
    except httpx.HTTPError as fault:
        raise NotInvoked(f"LocalStack does not answer ({fault!r}): scripts/up starts it") from fault
    took_s = time.monotonic() - started_s
    _refuse_failures(response, function)
    log = base64.b64decode(response.headers.get("X-Amz-Log-Result", "")).decode(errors="replace")
    lines = log.splitlines()
    if len(log.encode()) >= _TAIL_BYTES:
        lines = lines[1:]  # it begins in the middle of one
    try:
        answer = msgspec.json.decode(response.content) if response.content else None
    except msgspec.DecodeError as fault:
        raise NotInvoked(f"the answer is not JSON: {response.text[:300]}") from fault
    return Invocation(answer, "X-Amz-Function-Error" in response.headers, tuple(lines), took_s)


def _refuse_failures(response: httpx.Response, function: str) -> None:
    if response.status_code == 429:
        raise NotInvoked(
            f"{function} is at its concurrency: as many calls as it may have run already (a background loop has its"
            " leader and one that stands by); try again in a moment"
        )
    if response.status_code == 404:
        raise NotInvoked(f"{function} is not deployed: scripts/up deploys it")
    if response.status_code != 200:
        raise NotInvoked(f"LocalStack refused the call: {response.status_code} {response.text[:300]}")
