"""SAM puts the tags of an AWS::Serverless::Api on its stage only, but LocalStack takes the API's fixed id from a tag
of the API itself. Without the fixed id the API's URL changes with every restart."""

from typing import Any


def apply() -> None:
    from samtranslator.model.api.api_generator import ApiGenerator
    from samtranslator.model.tags.resource_tagging import get_tag_list

    construct = ApiGenerator._construct_rest_api

    def construct_with_tags(self: Any) -> Any:
        rest_api = construct(self)
        if self.tags:
            rest_api.Tags = get_tag_list(self.tags)
        return rest_api

    ApiGenerator._construct_rest_api = construct_with_tags
