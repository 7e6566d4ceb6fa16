"""LocalStack's own floor: a function that does nothing behind a route of an API that has nothing else."""

from typing import Any

from botocore.exceptions import ClientError

from encore_stack.deployment.one_file import create_function
from encore_stack.deployment.target import target_of
from encore_stack.instance import Instance

NAME = "bench-empty"
_CODE = 'def handler(event, context):\n    return {"statusCode": 200, "body": "{}"}\n'


def deploy_empty_function(instance: Instance) -> str:
    """Put it into the instance's LocalStack, unless it is there; returns its URL. Raises DeployError."""
    target = target_of(instance)
    url = f"{target.endpoint_url}/_aws/execute-api/{NAME}/v1/empty"
    functions, apis = target.client("lambda"), target.client("apigateway")
    try:
        apis.get_rest_api(restApiId=NAME)
        return url
    except ClientError as error:
        if error.response["Error"]["Code"] != "NotFoundException":
            raise
    _make_api(apis, create_function(functions, NAME, _CODE, Timeout=10))
    return url


def _make_api(apis: Any, function_arn: str) -> None:
    api = apis.create_rest_api(name=NAME, tags={"_custom_id_": NAME})["id"]
    [root] = apis.get_resources(restApiId=api)["items"]
    resource = apis.create_resource(restApiId=api, parentId=root["id"], pathPart="empty")["id"]
    method = {"restApiId": api, "resourceId": resource, "httpMethod": "GET"}
    apis.put_method(**method, authorizationType="NONE")
    path = f"2015-03-31/functions/{function_arn}/invocations"
    apis.put_integration(
        **method,
        type="AWS_PROXY",
        integrationHttpMethod="POST",
        uri=f"arn:aws:apigateway:us-east-1:lambda:path/{path}",
    )
    apis.create_deployment(restApiId=api, stageName="v1")
