"""template.yaml read as data: the one place where routes, timeouts, environment and the Kafka source are written down.

It is sent to CloudFormation; the fast gateway takes its routes and environment from here, the event-source
poller its batch settings, the tests everything. Only the functions of CloudFormation that the template uses are
evaluated; anything else raises TemplateError rather than being guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

NO_VALUE = object()
_SECRET = re.compile(r"\{\{resolve:secretsmanager:[^:}]+:SecretString:(?P<key>[^:}]+)[^}]*\}\}")
_VARIABLE = re.compile(r"\$\{(?P<name>[^!}]+)\}")

_PLAIN_FUNCTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "Equals": lambda values: values[0] == values[1],
    "Not": lambda values: not values[0],
    "And": all,
    "Or": any,
    "Join": lambda values: values[0].join(values[1]),
    "Split": lambda values: values[1].split(values[0]),
    "Select": lambda values: values[1][int(values[0])],
}


class TemplateError(Exception):
    """The template says something that this reader does not understand, or a parameter is missing."""


@dataclass(frozen=True)
class Route:
    """One method and path of the API; `path` has its parameters in braces, as Chalice wants them."""

    method: str
    path: str
    function: str


@dataclass(frozen=True)
class Function:
    """One Lambda function. `name` is its folder's name, `function_name` the deployed one."""

    logical_id: str
    name: str
    function_name: str
    code_dir: Path
    handler: str
    environment: dict[str, str] = field(hash=False)
    timeout_s: int
    memory_mb: int
    reserved_concurrency: int | None
    layers: tuple[str, ...]
    routes: tuple[Route, ...]
    schedules: tuple[str, ...]

    @property
    def handler_file(self) -> Path:
        return self.code_dir / (self.handler.rpartition(".")[0].replace(".", "/") + ".py")


@dataclass(frozen=True)
class KafkaSource:
    """An event-source mapping: which topics feed which function, and how."""

    function: str
    topics: tuple[str, ...]
    consumer_group: str
    batch_size: int
    batch_window_s: float
    starting_position: str
    partial_batch_failures: bool
    pollers_max: int
    """How many of AWS's pollers read the topics at most; each has partitions of its own."""


@dataclass(frozen=True)
class Layer:
    logical_id: str
    content_dir: Path
    build_method: str


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads !Ref, !Sub, … as their long forms."""


def _long_form(loader: _Loader, suffix: str, node: yaml.Node) -> Json:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = str(value).split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _long_form)


def _read_body(path: Path) -> Json:
    try:
        body: Json = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise TemplateError(f"template.yaml{place}: {error.problem}") from error
    return body


def _variable(parameter: str) -> str:
    """QueueRedisUrl is given by ENCORE_QUEUE_REDIS_URL."""
    return "ENCORE" + re.sub(r"([A-Z])", r"_\1", parameter).upper()


class Template:
    """template.yaml with its parameters filled in.

    `parameters` override the template's defaults. `secrets` are the values of the secret's keys; without them the
    environment keeps its `{{resolve:…}}` references.
    """

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Template:
        """The project's template, parameters as the environment gives them (QueueRedisUrl: ENCORE_QUEUE_REDIS_URL).

        Raises TemplateError.
        """
        path = Path(__file__).parents[3] / "template.yaml"
        parameters = {
            name: environ.get(_variable(name), "")
            for name, definition in _read_body(path)["Parameters"].items()
            if _variable(name) in environ or "Default" not in definition
        }
        return cls(path, parameters, stack_name=environ.get("ENCORE_STACK_NAME", "encore"))

    def __init__(
        self,
        path: Path,
        parameters: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        stack_name: str = "encore",
    ) -> None:
        self.path = path
        self.body: Json = _read_body(path)
        self._secrets = secrets
        unknown = set(parameters or {}) - set(self.body["Parameters"])
        if unknown:
            raise TemplateError(f"template.yaml has no parameter {', '.join(sorted(unknown))}")
        self._values: dict[str, Any] = {
            name: self._parameter_value(definition, (parameters or {}).get(name))
            for name, definition in self.body["Parameters"].items()
        }
        self._values |= {
            "AWS::StackName": stack_name,
            "AWS::Region": "us-east-1",
            "AWS::AccountId": "000000000000",
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NoValue": NO_VALUE,
        }

    @staticmethod
    def _parameter_value(definition: Json, given: str | None) -> Any:
        value = definition.get("Default") if given is None else given
        if definition["Type"] == "CommaDelimitedList":
            return str(value or "").split(",")
        return value

    # -- what the others ask for --

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """All functions, in the template's order."""
        return tuple(
            self._function(logical_id, resource)
            for logical_id, resource in self.body["Resources"].items()
            if resource["Type"] == "AWS::Serverless::Function"
        )

    def function(self, name: str) -> Function:
        """The function of this folder name. Raises TemplateError."""
        for function in self.functions:
            if function.name == name:
                return function
        raise TemplateError(f"template.yaml has no function {name}")

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """All routes of the API."""
        return tuple(route for function in self.functions for route in function.routes)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(
            Layer(
                logical_id,
                self.path.parent / resource["Properties"]["ContentUri"],
                resource.get("Metadata", {}).get("BuildMethod", ""),
            )
            for logical_id, resource in self.body["Resources"].items()
            if resource["Type"] == "AWS::Serverless::LayerVersion"
        )

    @cached_property
    def kafka_sources(self) -> tuple[KafkaSource, ...]:
        """The Kafka event sources, whether their condition holds or not: locally the poller stands in for them."""
        names = {function.logical_id: function.name for function in self.functions}
        sources = []
        for resource in self.body["Resources"].values():
            if resource["Type"] != "AWS::Lambda::EventSourceMapping" or "Topics" not in resource["Properties"]:
                continue
            given = {name: value for name, value in resource["Properties"].items() if name != "DestinationConfig"}
            properties = self.resolve(given)
            sources.append(
                KafkaSource(
                    function=names[properties["FunctionName"]],
                    topics=tuple(properties["Topics"]),
                    consumer_group=properties["AmazonManagedKafkaEventSourceConfig"]["ConsumerGroupId"],
                    batch_size=int(properties["BatchSize"]),
                    batch_window_s=float(properties.get("MaximumBatchingWindowInSeconds", 0.5)),
                    starting_position=properties["StartingPosition"],
                    partial_batch_failures="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
                    pollers_max=int(properties["ProvisionedPollerConfig"]["MaximumPollers"]),
                )
            )
        return tuple(sources)

    def _function(self, logical_id: str, resource: Json) -> Function:
        try:
            return self._read_function(logical_id, resource)
        except KeyError as missing:
            raise TemplateError(f"{logical_id} in template.yaml lacks {missing.args[0]}") from missing

    def _read_function(self, logical_id: str, resource: Json) -> Function:
        given = resource["Properties"]
        settings = {**self.body.get("Globals", {}).get("Function", {}), **given}
        environment = {
            **self.body["Globals"]["Function"].get("Environment", {}).get("Variables", {}),
            **given.get("Environment", {}).get("Variables", {}),
        }
        code = Path(given["CodeUri"])
        events = given.get("Events", {}).values()
        reserved = settings.get("ReservedConcurrentExecutions")
        return Function(
            logical_id=logical_id,
            name=code.name,
            function_name=self.resolve(settings["FunctionName"]),
            code_dir=self.path.parent / code,
            handler=settings["Handler"],
            environment={name: str(self.resolve(value)) for name, value in environment.items()},
            timeout_s=int(settings["Timeout"]),
            memory_mb=int(settings["MemorySize"]),
            reserved_concurrency=None if reserved is None else int(reserved),
            layers=tuple(self.resolve(layer) for layer in settings.get("Layers", [])),
            routes=tuple(
                Route(event["Properties"]["Method"].upper(), event["Properties"]["Path"], code.name)
                for event in events
                if event["Type"] == "Api"
            ),
            schedules=tuple(event["Properties"]["Schedule"] for event in events if event["Type"] == "Schedule"),
        )

    # -- the functions of CloudFormation --

    def resolve(self, value: Any) -> Any:
        """`value` with its functions evaluated; a reference to a resource becomes its logical id."""
        if isinstance(value, list):
            return [each for each in map(self.resolve, value) if each is not NO_VALUE]
        if isinstance(value, str):
            return self._with_secrets(value)
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument), *_ = value.items()
            if name == "Ref":
                return self._ref(argument)
            if name == "Condition" and isinstance(argument, str):
                return self.condition(argument)
            if name.startswith("Fn::"):
                return self._call(name.removeprefix("Fn::"), argument)
        resolved = {name: self.resolve(each) for name, each in value.items()}
        return {name: each for name, each in resolved.items() if each is not NO_VALUE}

    def condition(self, name: str) -> bool:
        """Whether the named condition holds."""
        return bool(self.resolve(self.body["Conditions"][name]))

    def _ref(self, name: str) -> Any:
        if name in self._values:
            value = self._values[name]
            if value is None:
                raise TemplateError(f"parameter {name} of template.yaml has no value")
            return value
        if name in self.body["Resources"]:
            return name
        raise TemplateError(f"template.yaml refers to {name}, which it does not define")

    def _call(self, function: str, argument: Any) -> Any:
        if function == "If":
            name, then, otherwise = argument
            return self.resolve(then if self.condition(name) else otherwise)
        if function == "Sub":
            text, local = argument if isinstance(argument, list) else (argument, {})
            return self._substitute(text, self.resolve(local))
        if function == "GetAtt":
            return ".".join(argument)
        if function not in _PLAIN_FUNCTIONS:
            raise TemplateError(f"template.yaml uses Fn::{function}, which this reader does not know")
        return _PLAIN_FUNCTIONS[function](self.resolve(argument))

    def _substitute(self, text: str, local: Json) -> str:
        def value(match: re.Match[str]) -> str:
            name = match["name"]
            return str(local[name] if name in local else name if "." in name else self._ref(name))

        return self._with_secrets(_VARIABLE.sub(value, text))

    def _with_secrets(self, text: str) -> str:
        secrets = self._secrets
        if secrets is None:
            return text
        try:
            return _SECRET.sub(lambda match: secrets[match["key"]], text)
        except KeyError as error:
            raise TemplateError(f"the secret has no key {error}") from error
