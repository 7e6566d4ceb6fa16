"""The wire format of API Gateway's Lambda proxy integration (REST, payload 1.0), from and to WSGI."""

import base64
import binascii
import random
import time
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

BODY_BYTES_MAX = 10 * 1024 * 1024
"""API Gateway's limit on a request."""

_API_ID, _STAGE, _ACCOUNT = "encore", "v1", "000000000000"
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"})

type Environ = dict[str, Any]
type HeaderList = list[tuple[str, str]]


class BodyTooLarge(Exception):
    """The request's body is over BODY_BYTES_MAX."""


class MalformedProxyResponse(Exception):
    """The function answered something that API Gateway would not accept."""


def read_body(environ: Environ) -> bytes:
    """The whole body. Raises BodyTooLarge, as early as the length is known."""
    length = environ.get("CONTENT_LENGTH")
    if length and length.isdecimal() and int(length) > BODY_BYTES_MAX:
        raise BodyTooLarge
    if not length and "HTTP_TRANSFER_ENCODING" not in environ:
        return b""
    body: bytes = environ["wsgi.input"].read(BODY_BYTES_MAX + 1)
    if len(body) > BODY_BYTES_MAX:
        raise BodyTooLarge
    return body


def path_of(environ: Environ) -> str:
    """The URL-decoded path; WSGI hands its UTF-8 bytes over as latin-1."""
    path: str = environ["PATH_INFO"]
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


def event_of(
    environ: Environ, path: str, resource_path: str, path_parameters: dict[str, str], body: bytes
) -> dict[str, Any]:
    """The event that API Gateway would send; empty groups are None, as there."""
    headers = _headers(environ)
    query = parse_qsl(environ["QUERY_STRING"], keep_blank_values=True) if environ.get("QUERY_STRING") else []
    multi_query: dict[str, list[str]] = {}
    for name, value in query:
        multi_query.setdefault(name, []).append(value)
    method = environ["REQUEST_METHOD"]
    return {
        "resource": resource_path,
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": multi_query or None,
        "pathParameters": path_parameters or None,
        "stageVariables": None,
        "requestContext": _request_context(environ, headers, method, path, resource_path),
        "body": body.decode("utf-8", "replace") if body else None,
        "isBase64Encoded": False,
    }


def _request_context(
    environ: Environ, headers: dict[str, str], method: str, path: str, resource_path: str
) -> dict[str, Any]:
    now = time.time()
    request_id = _request_id()
    return {
        "accountId": _ACCOUNT,
        "apiId": _API_ID,
        "domainName": headers.get("Host", ""),
        "domainPrefix": _API_ID,
        "extendedRequestId": request_id,
        "httpMethod": method,
        "identity": {
            "sourceIp": environ.get("REMOTE_ADDR", ""),
            "userAgent": headers.get("User-Agent"),
            "accountId": None,
            "apiKey": None,
            "caller": None,
            "cognitoIdentityId": None,
            "user": None,
            "userArn": None,
        },
        "path": f"/{_STAGE}{path}",
        "protocol": environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
        "requestId": request_id,
        "requestTime": _request_time(int(now)),
        "requestTimeEpoch": int(now * 1000),
        "resourceId": resource_path,
        "resourcePath": resource_path,
        "stage": _STAGE,
    }


def _request_id() -> str:
    """A random UUID (version 4) as text, in a third of the time that ``uuid`` takes and without a system call."""
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


@lru_cache(maxsize=4)
def _request_time(unix_s: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(unix_s))


def _headers(environ: Environ) -> dict[str, str]:
    headers = {_header_name(name): value for name, value in environ.items() if name.startswith("HTTP_")}
    for name, header in (("CONTENT_TYPE", "Content-Type"), ("CONTENT_LENGTH", "Content-Length")):
        if environ.get(name):
            headers[header] = environ[name]
    return headers


@lru_cache(maxsize=512)
def _header_name(variable: str) -> str:
    return variable[5:].replace("_", "-").title()


def answer_of(result: Any) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body of a function's answer. Raises MalformedProxyResponse."""
    if not isinstance(result, dict):
        raise MalformedProxyResponse(f"the answer is a {type(result).__name__}, not an object")
    try:
        status = int(result["statusCode"])
        body = _answer_body(result)
        headers = _answer_headers(result)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise MalformedProxyResponse(repr(e)) from e
    if not 100 <= status <= 599:
        raise MalformedProxyResponse(f"statusCode is {status}")
    if body and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    return status, headers, body


def _answer_body(result: dict[str, Any]) -> bytes:
    body = result.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise TypeError(f"body is a {type(body).__name__}, not a string")
    if not result.get("isBase64Encoded"):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as e:
        raise ValueError("body is no base64") from e


def _answer_headers(result: dict[str, Any]) -> HeaderList:
    multi = result.get("multiValueHeaders") or {}
    pairs = [(name, str(value)) for name, value in (result.get("headers") or {}).items() if name not in multi]
    pairs += [(name, str(value)) for name, values in multi.items() for value in values]
    told = "".join([name + value for name, value in pairs])
    if "\n" in told or "\r" in told:
        raise ValueError("a header has a line break")
    return [pair for pair in pairs if not _is_hop_by_hop(pair[0])]


@lru_cache(maxsize=512)
def _is_hop_by_hop(name: str) -> bool:
    return name.lower() in _HOP_BY_HOP
