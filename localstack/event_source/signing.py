"""The Authorization header of a call to LocalStack, which checks no signature but reads service and region from it."""


def authorization(service: str, region: str) -> str:
    """For calls of a service by its signing name (lambda, monitoring)."""
    scope = f"test/20260101/{region}/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
