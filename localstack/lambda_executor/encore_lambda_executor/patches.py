"""Small changes to LocalStack 4.14.0, one function and one reason each. The version is pinned, so they cannot drift."""

import tempfile
from pathlib import Path
from typing import Any


def apply_patches() -> None:
    """Applies all of them; called once, before LocalStack serves."""
    keep_s3_objects_in_instance()
    tag_rest_apis()
    wait_briefly_for_functions()


def keep_s3_objects_in_instance() -> None:
    """LocalStack keeps S3 objects in one fixed folder of /tmp, which two instances would share."""
    from localstack.services.s3 import provider

    provider.DEFAULT_S3_TMP_DIR = str(Path(tempfile.gettempdir(), "s3"))


def tag_rest_apis() -> None:
    """SAM puts the tags of an AWS::Serverless::Api on its stage only, but LocalStack takes the API's fixed id from a
    tag of the API itself. Without the fixed id the API's URL changes with every restart."""
    from samtranslator.model.api.api_generator import ApiGenerator
    from samtranslator.model.tags.resource_tagging import get_tag_list

    construct = ApiGenerator._construct_rest_api

    def construct_with_tags(self: Any) -> Any:
        rest_api = construct(self)
        if self.tags:
            rest_api.Tags = get_tag_list(self.tags)
        return rest_api

    ApiGenerator._construct_rest_api = construct_with_tags


def wait_briefly_for_functions() -> None:
    """CloudFormation's function resource waits with botocore's waiters, which look once a second, twice for each
    update: half a minute for the functions of one stack, for something done in milliseconds."""
    from botocore.waiter import Waiter

    wait = Waiter.wait

    def wait_briefly(self: Any, **arguments: Any) -> None:
        if "function" in self.name.lower():
            arguments.setdefault("WaiterConfig", {"Delay": 0.05, "MaxAttempts": 2400})
        wait(self, **arguments)

    Waiter.wait = wait_briefly
