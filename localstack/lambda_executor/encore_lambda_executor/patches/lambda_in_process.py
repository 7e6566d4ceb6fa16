"""API Gateway calls Lambda as a function instead of through an AWS client and LocalStack's own HTTP port.

LocalStack signs, sends, parses and routes each request a second time to reach an object in the same process, and the
call holds a second worker thread. Whatever is not an answer of the function (throttled, absent, just being replaced)
is left to LocalStack's own way, which tries again and words the error; so is an integration with a role to assume.
What is skipped is the second request's handler chain: without a licence LocalStack enforces no permissions there.
"""

import functools
from typing import Any

_INTEGRATION = "localstack.services.apigateway.next_gen.execute_api.integrations.aws"
REPLACES = (f"{_INTEGRATION}:RestApiAwsProxyIntegration.call_lambda",)


def apply() -> None:
    from localstack.services.apigateway.next_gen.execute_api.integrations.aws import RestApiAwsProxyIntegration
    from localstack.services.lambda_.api_utils import function_locators_from_arn
    from localstack.services.plugins import SERVICE_PLUGINS
    from localstack.utils.strings import long_uid

    call_through_client = RestApiAwsProxyIntegration.call_lambda

    @functools.cache
    def provider() -> Any:
        return SERVICE_PLUGINS.require("lambda")._provider

    def call_lambda(function_arn: str, event: bytes, source_arn: str, credentials: str | None = None) -> bytes:
        name, qualifier, account_id, region = function_locators_from_arn(function_arn)
        if not credentials and name and account_id and region:
            try:
                # Its service is looked up at each call: resetting LocalStack's state gives the provider another one.
                result = provider().lambda_service.invoke(
                    function_name=name,
                    qualifier=qualifier,
                    region=region,
                    account_id=account_id,
                    invocation_type="RequestResponse",
                    client_context=None,
                    request_id=long_uid(),
                    payload=event,
                )
                return bytes(result.payload or b"")
            except Exception:  # noqa: S110 - it comes again below, where it is dealt with
                pass
        return bytes(call_through_client(function_arn, event, source_arn, credentials))

    RestApiAwsProxyIntegration.call_lambda = staticmethod(call_lambda)
