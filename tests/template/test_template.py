"""template.yaml against the code it deploys: routes, handlers, logs, permissions, and the sum of all connections."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from encore_lambda_executor.pool import ENVIRONMENTS_MAX
from encore_stack.deployment.deploy import _check_code
from encore_stack.deployment.template import Function, Template, TemplateError
from event_source.lag import EVERY_S, Lag, form_of
from fast_gateway.settings import read_settings

PROJECT = Path(__file__).parents[2]
PARAMETERS = {
    "Deployment": "local",
    "EdgeTrust": "open",
    "QueueRedisUrl": "redis://127.0.0.1:1/0",
    "LocksRedisUrl": "redis://127.0.0.1:2/0",
    "CacheRedisUrl": "redis://127.0.0.1:3/0",
    "KafkaBootstrapServers": "127.0.0.1:4",
    "DanalUrl": "http://127.0.0.1:5",
    "PaycoUrl": "http://127.0.0.1:6",
    "NoticesUrl": "file:///tmp/encore/notices",
}
SECRETS = {
    "database_url": "postgresql://encore:pw@127.0.0.1:7/encore",
    "replica_url": "postgresql://encore:pw@127.0.0.1:8/encore",
    "token_keys": f"k1:{'00' * 32}",
    "person_secret": "00" * 32,
}
CONNECTIONS_KEPT_FREE = 20  # for migrations, audits, the operator, the replica's own stream
TEMPLATE = Template(PROJECT / "template.yaml", PARAMETERS, SECRETS)
ROUTES = {
    ("POST", "/queue/tokens", "step1_join_queue"),
    ("GET", "/queue/tokens/current", "step2_queue_position"),
    ("DELETE", "/queue/tokens/current", "step2_queue_position"),
    ("GET", "/concerts", "step3_concerts"),
    ("GET", "/concerts/{concert_id}", "step3_concerts"),
    ("GET", "/concerts/{concert_id}/schedules", "step4_schedules"),
    ("GET", "/schedules/{schedule_id}/seats", "step5_seats"),
    ("POST", "/reservations", "step6_reserve"),
    ("GET", "/reservations/{reservation_id}", "step6_reserve"),
    ("DELETE", "/reservations/{reservation_id}", "step6_reserve"),
    ("POST", "/reservations/{reservation_id}/payments", "step7_pay"),
}


def resources(kind: str) -> dict[str, Any]:
    return {name: each for name, each in TEMPLATE.body["Resources"].items() if each["Type"] == kind}


def each_function(*, with_routes: bool | None = None) -> list[Any]:
    return [
        pytest.param(function, id=function.name)
        for function in TEMPLATE.functions
        if with_routes is None or bool(function.routes) == with_routes
    ]


@cache
def load(function: Function) -> ModuleType:
    """The function's app.py under a name of its own: they are all called app."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in function.environment.items():
            patch.setenv(name, value)
        name = f"template_test_{function.name}"
        spec = importlib.util.spec_from_file_location(name, function.handler_file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


# ---- functions and routes ----


def test_every_folder_of_functions_is_in_the_template() -> None:
    folders = {folder.name for folder in (PROJECT / "functions").iterdir() if folder.is_dir()} - {"__pycache__"}
    assert {function.name for function in TEMPLATE.functions} == folders


def test_the_routes_are_the_designs() -> None:
    assert {(route.method, route.path, route.function) for route in TEMPLATE.routes} == ROUTES


@pytest.mark.parametrize("function", each_function(with_routes=True))
def test_the_apps_routes_are_the_templates(function: Function) -> None:
    # Chalice looks the path up literally: another parameter name would answer 405.
    routes = load(function).app.routes
    in_app = {(method, path) for path, methods in routes.items() for method in methods}
    assert in_app == {(route.method, route.path) for route in function.routes}


@pytest.mark.parametrize("function", each_function())
def test_the_handler_exists(function: Function) -> None:
    assert callable(getattr(load(function), function.handler.rpartition(".")[2]))
    assert function.handler == ("app.app" if function.routes else "app.handler")


@pytest.mark.parametrize("function", each_function())
def test_a_function_is_named_after_its_folder(function: Function) -> None:
    assert function.function_name == f"encore-{function.name}"
    assert function.environment["POWERTOOLS_SERVICE_NAME"] == function.name
    assert function.logical_id == "".join(part.capitalize() for part in function.name.split("_"))


def test_background_loops_run_every_minute_two_at_a_time() -> None:
    loops = [function for function in TEMPLATE.functions if function.name.startswith("every_minute_")]
    assert len(loops) == 7
    for loop in loops:
        assert (loop.schedules, loop.timeout_s, loop.reserved_concurrency) == (("rate(1 minute)",), 90, 2)


def test_reconciliation_runs_every_hour_one_at_a_time() -> None:
    (job,) = [function for function in TEMPLATE.functions if function.name.startswith("every_hour_")]
    assert (job.schedules, job.reserved_concurrency) == (("rate(1 hour)",), 1)


@pytest.mark.parametrize("function", each_function())
def test_a_function_has_a_timeout_that_fits(function: Function) -> None:
    own = TEMPLATE.body["Resources"][function.logical_id]["Properties"]
    assert "Timeout" in own or "Timeout" in TEMPLATE.body["Globals"]["Function"]
    assert 0 < function.timeout_s < (29 if function.routes else 901)  # the API Gateway gives up after 29 s


def test_the_environment_is_complete_and_resolved() -> None:
    for function in TEMPLATE.functions:
        assert function.environment["ENCORE_DATABASE_URL"] == SECRETS["database_url"]
        assert function.environment["ENCORE_LOCKS_REDIS_URL"] == PARAMETERS["LocksRedisUrl"]
        assert function.environment["ENCORE_RESERVATION_TOPIC"] == "reservation-events"
        assert not [value for value in function.environment.values() if "{" in value or value == ""]


def test_no_secret_is_a_parameter() -> None:
    text = (PROJECT / "template.yaml").read_text()
    for name in SECRETS:
        assert f"SecretString:{name}:" in text
    assert not [name for name in TEMPLATE.body["Parameters"] if re.search("Password|DatabaseUrl|Keys", name)]


# ---- logs ----


@pytest.mark.parametrize("function", each_function())
def test_a_function_has_its_log_group_with_a_retention(function: Function) -> None:
    group = TEMPLATE.body["Resources"][f"{function.logical_id}Logs"]
    assert group["Type"] == "AWS::Logs::LogGroup"
    assert TEMPLATE.resolve(group["Properties"]["LogGroupName"]) == f"/aws/lambda/{function.function_name}"
    assert int(TEMPLATE.resolve(group["Properties"]["RetentionInDays"])) > 0
    own = TEMPLATE.body["Resources"][function.logical_id]["Properties"]
    assert own["LoggingConfig"]["LogGroup"] == {"Ref": f"{function.logical_id}Logs"}


# ---- permissions ----

MANAGED_POLICIES = {  # AWS's own, for network interfaces: attached inside a VPC or with MSK only
    "AWSLambdaVPCAccessExecutionRole": "InVpc",
    "AWSLambdaMSKExecutionRole": "HasMsk",
}


def statements(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "Effect" in node:
            yield node
        for value in node.values():
            yield from statements(value)
    elif isinstance(node, list):
        for value in node:
            yield from statements(value)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("function", each_function())
def test_a_function_may_do_only_what_it_needs(function: Function) -> None:
    own = TEMPLATE.body["Resources"][function.logical_id]["Properties"]
    assert own["Role"] == {"Fn::GetAtt": [f"{function.logical_id}Role", "Arn"]}, "a role of its own"
    role = TEMPLATE.body["Resources"][f"{function.logical_id}Role"]["Properties"]
    allowed = list(statements(role["Policies"]))
    assert allowed
    for statement in allowed:
        for action in as_list(statement["Action"]):
            assert "*" not in action, f"{function.name} may {action}"
        for resource in as_list(statement["Resource"]):
            assert resource not in ("*", {"Fn::Sub": "*"}), (
                f"{function.name} may do {statement['Action']} on everything"
            )
    logs = [each for each in allowed if any(action.startswith("logs:") for action in as_list(each["Action"]))]
    assert [each["Resource"] for each in logs] == [{"Fn::GetAtt": [f"{function.logical_id}Logs", "Arn"]}]


def test_managed_policies_are_known_and_conditional() -> None:
    for name, role in resources("AWS::IAM::Role").items():
        policies = role["Properties"]["ManagedPolicyArns"]
        assert TEMPLATE.resolve(policies) == [], f"{name}: none without a VPC"
        for condition, policy, _ in (each["Fn::If"] for each in policies):
            assert MANAGED_POLICIES[policy["Fn::Sub"].rpartition("/")[2]] == condition


# ---- AWS and the emulator ----


def test_open_trust_is_refused_on_aws() -> None:
    (rule,) = TEMPLATE.body["Rules"].values()
    assertion = rule["Assertions"][0]["Assert"]

    def refused(deployment: str, trust: str) -> bool:
        template = Template(TEMPLATE.path, {**PARAMETERS, "Deployment": deployment, "EdgeTrust": trust})
        return bool(template.resolve(rule["RuleCondition"])) and not template.resolve(assertion)

    assert refused("aws", "open")
    assert not refused("aws", "api_key")
    assert not refused("aws", "authorizer")
    assert not refused("local", "open")
    assert TEMPLATE.body["Parameters"]["EdgeTrust"]["Default"] != "open"
    assert TEMPLATE.body["Parameters"]["Deployment"]["Default"] == "aws"


def test_the_kafka_sources_are_conditional_and_readable_for_the_poller() -> None:
    mappings = resources("AWS::Lambda::EventSourceMapping").values()
    assert not TEMPLATE.condition("HasMsk")
    assert {mapping["Condition"] for mapping in mappings} == {"HasMsk"}
    assert all("OnFailure" in mapping["Properties"]["DestinationConfig"] for mapping in mappings)
    functions = ["on_reservation_events_issue_tickets", "on_reservation_events_count_sales"]
    assert [source.function for source in TEMPLATE.kafka_sources] == functions
    for source in TEMPLATE.kafka_sources:
        assert source.topics == ("reservation-events",)
        assert source.consumer_group == f"encore-{source.function}", "a group of its own"
        assert (source.batch_size, source.starting_position) == (100, "TRIM_HORIZON")
        assert source.partial_batch_failures


def test_one_setting_raises_the_partitions_and_who_reads_them() -> None:
    template = Template(TEMPLATE.path, {**PARAMETERS, "TopicPartitions": "48"}, SECRETS)
    assert [source.pollers_max for source in TEMPLATE.kafka_sources] == [12, 12]
    assert [source.pollers_max for source in template.kafka_sources] == [48, 48]


def alarms(template: Template, consumer_group: str) -> list[dict[str, Any]]:
    """The alarms on how far this group is behind, as they are deployed."""
    found = []
    for alarm in resources("AWS::CloudWatch::Alarm").values():
        given = template.resolve(alarm["Properties"])
        dimensions = {each["Name"]: each["Value"] for each in given["Dimensions"]}
        if template.condition(alarm["Condition"]) and dimensions["Consumer Group"] == consumer_group:
            found.append(given | {"Dimensions": dimensions})
    return found


def test_every_consumer_has_an_alarm_on_the_metric_that_msk_and_its_stand_in_publish() -> None:
    for source in TEMPLATE.kafka_sources:
        (alarm,) = alarms(TEMPLATE, source.consumer_group)
        form = form_of("encore", [Lag(source.consumer_group, source.topics[0], 12.0)])
        published = {form[f"{one}.Name"]: form[f"{one}.Value"] for one in _members(form)}
        assert alarm["Dimensions"] == published
        assert (alarm["Namespace"], alarm["MetricName"]) == (form["Namespace"], form["MetricData.member.1.MetricName"])
        assert alarm["AlarmName"] == f"{source.consumer_group}-lag"
        assert alarm["TreatMissingData"] == "ignore", "nobody can say: it stays as it was"
        assert alarm["Period"] > 2 * EVERY_S


def _members(form: Mapping[str, str]) -> list[str]:
    return [name.removesuffix(".Name") for name in form if ".Dimensions." in name and name.endswith(".Name")]


def test_on_aws_the_alarms_follow_msks_cluster_and_minutes() -> None:
    arn = "arn:aws:kafka:us-east-1:000000000000:cluster/shop/0a1b-5"
    aws = Template(TEMPLATE.path, {**PARAMETERS, "Deployment": "aws", "MskClusterArn": arn}, SECRETS)
    outside = Template(TEMPLATE.path, {**PARAMETERS, "Deployment": "aws"}, SECRETS)
    for source in aws.kafka_sources:
        (alarm,) = alarms(aws, source.consumer_group)
        assert (alarm["Dimensions"]["Cluster Name"], alarm["Period"], int(alarm["Threshold"])) == ("shop", 60, 30)
        assert alarms(outside, source.consumer_group) == [], "nobody publishes the metric"


def test_people_are_told_through_sns_on_aws_and_by_the_stand_in_elsewhere() -> None:
    (topic,) = resources("AWS::SNS::Topic").values()
    assert topic["Condition"] == "OnAws" and not TEMPLATE.condition("OnAws")
    aws = Template(TEMPLATE.path, {**PARAMETERS, "Deployment": "aws"}, SECRETS)
    told = [each.function("every_minute_send_notices").environment["ENCORE_NOTICES_URL"] for each in (TEMPLATE, aws)]
    assert told == [PARAMETERS["NoticesUrl"], "NoticeTopic"]


def test_the_api_has_a_fixed_id_and_stage() -> None:
    (api,) = resources("AWS::Serverless::Api").values()
    assert (api["Properties"]["Tags"]["_custom_id_"], api["Properties"]["StageName"]) == ("encore", "v1")


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(TemplateError, match="no parameter Nonsense"):
        Template(TEMPLATE.path, {"Nonsense": "1"})


def test_a_missing_parameter_is_told() -> None:
    with pytest.raises(TemplateError, match=r"DanalUrl of template\.yaml has no value"):
        _ = Template(TEMPLATE.path, {key: value for key, value in PARAMETERS.items() if key != "DanalUrl"}).functions


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("\nGlobals:", "\n  : : bad\nGlobals:", r"^template\.yaml:\d+:\d+: expected <block end>, but found"),
        ("MemorySize:", "MemorySizes:", r"^\w+ in template\.yaml lacks MemorySize$"),
        ("!Ref QueueRedisUrl", "!Ref QueueRedisUrls", r"^template\.yaml refers to QueueRedisUrls, which it does not"),
    ],
)
def test_what_is_wrong_with_a_template_is_told_in_words(tmp_path: Path, old: str, new: str, told: str) -> None:
    text = TEMPLATE.path.read_text()
    assert old in text
    path = tmp_path / "template.yaml"
    path.write_text(text.replace(old, new))

    with pytest.raises(TemplateError, match=told):
        _ = Template(path, PARAMETERS).functions


def test_a_function_without_its_file_is_not_deployed(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE.path.read_text())
    (tmp_path / "functions").symlink_to(PROJECT / "functions")
    _check_code(Template(path, PARAMETERS))

    path.write_text(path.read_text().replace("CodeUri: functions/step5_seats", "CodeUri: functions/step5_chairs"))
    with pytest.raises(TemplateError, match=r"runs functions/step5_chairs/app\.py, which is not there"):
        _check_code(Template(path, PARAMETERS))


# ---- layers ----


def test_the_runtime_layers_lock_is_whole_and_names_no_host() -> None:
    lock = (PROJECT / "layers/runtime/requirements.lock").read_text()
    wanted = re.findall(r"^([a-z][\w.-]*)", (PROJECT / "layers/runtime/requirements.in").read_text(), re.MULTILINE)
    assert wanted
    for package in wanted:
        assert re.search(rf"^{re.escape(package)}==\S+", lock, re.MULTILINE), package
    assert "://" not in lock and "--index" not in lock
    for left_out in ("botocore", "boto3", "setuptools", "pip"):
        assert not re.search(rf"^{left_out}==", lock, re.MULTILINE), f"{left_out} is chalice's deployer's"


# ---- connections ----


def test_all_connections_together_leave_postgres_room() -> None:
    """An environment has one connection to a server, a worker of the fast gateway a few; a loop one more: its lease."""
    text = (PROJECT / "localstack/postgres/postgresql.conf").read_text()
    (maximum,) = re.findall(r"^max_connections\s*=\s*(\d+)", text, re.MULTILINE)
    connections = sum(
        min(function.reserved_concurrency or ENVIRONMENTS_MAX, ENVIRONMENTS_MAX)
        * (2 if function.name.startswith("every_minute_") else 1)
        for function in TEMPLATE.functions
    )
    gateway = read_settings({})
    assert connections + gateway.workers * gateway.connections <= int(maximum) - CONNECTIONS_KEPT_FREE
