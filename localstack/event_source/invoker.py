"""Invokes a function through LocalStack's Invoke API, and sorts out what went wrong."""

from typing import Any

import httpx
import msgspec

from event_source.signing import authorization


class InvokeFailed(Exception):
    """The batch was not processed for certain, so it has to be sent again."""

    kind = "failed"


class Unreachable(InvokeFailed):
    """LocalStack is away, is starting, or does not know the function (yet)."""

    kind = "unreachable"


class Throttled(InvokeFailed):
    """The function is at its concurrency."""

    kind = "throttled"


class FunctionFailed(InvokeFailed):
    """The function raised or ran out of time."""

    kind = "function_error"


class Invoker:
    """Invokes `function_name` synchronously; safe for any number of concurrent calls."""

    def __init__(self, localstack_url: str, function_name: str, region: str, timeout_s: float) -> None:
        self._url = f"{localstack_url}/2015-03-31/functions/{function_name}/invocations"
        self._client = httpx.AsyncClient(
            headers={"Authorization": authorization("lambda", region), "Content-Type": "application/json"},
            # A call may wait for a free environment before the function's own time starts.
            timeout=httpx.Timeout(timeout_s + 30, connect=2),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    async def invoke(self, event: dict[str, Any]) -> Any:
        """The function's answer, decoded. Raises Unreachable, Throttled or FunctionFailed."""
        try:
            answer = await self._client.post(self._url, content=msgspec.json.encode(event))
        except httpx.HTTPError as e:
            raise Unreachable(repr(e)) from e
        if answer.status_code == 429:
            raise Throttled(answer.text[:500])
        if answer.status_code != 200:
            raise Unreachable(f"{answer.status_code} {answer.text[:500]}")
        if "x-amz-function-error" in answer.headers:
            raise FunctionFailed(answer.text[:2_000])
        try:
            return msgspec.json.decode(answer.content) if answer.content else None
        except msgspec.DecodeError as e:
            raise FunctionFailed(f"the answer is no JSON: {answer.text[:500]}") from e

    async def close(self) -> None:
        await self._client.aclose()
