"""The functions' processes, without LocalStack: real template processes, real forks."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from encore_lambda_executor.pool import Call, FunctionPool, FunctionSpec, NoEnvironmentFree, Outcome, PoolClosed

HANDLER = """
    import os, random, sys, time
    print("importing")
    IMPORTED_IN = os.getpid()
    def handler(event, context):
        {body}
"""
ENVIRONMENT = {
    "AWS_LAMBDA_FUNCTION_NAME": "encore-sample",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/encore-sample",
    "AWS_LAMBDA_LOG_STREAM_NAME": "template",
}

PoolMaker = Callable[..., FunctionPool]


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[PoolMaker]:
    pools: list[FunctionPool] = []

    def make(body: str = "return event", *, source: str | None = None, **settings: Any) -> FunctionPool:
        folder = tmp_path / f"function{len(pools)}"
        folder.mkdir()
        (folder / "app.py").write_text(textwrap.dedent(source or HANDLER.format(body=body)))
        values: dict[str, Any] = {
            "name": "encore-sample",
            "version": "$LATEST",
            "handler": "app.handler",
            "path": (str(folder),),
            "environment": ENVIRONMENT,
            "timeout_s": 5.0,
            "memory_mb": 256,
        }
        pool = FunctionPool(FunctionSpec(**(values | settings)))
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


def invoke(pool: FunctionPool, event: object = None, request_id: str = "r-1") -> Outcome:
    return pool.invoke(
        Call(
            request_id, "arn:aws:lambda:us-east-1:000000000000:function:encore-sample", json.dumps(event).encode(), "s"
        )
    )


def answer(outcome: Outcome) -> Any:
    assert not outcome.is_error, outcome.payload
    return json.loads(outcome.payload)


def in_parallel(count: int, call: Callable[[int], Any]) -> list[Any]:
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        try:
            results[number] = call(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


# ---- answers, context, environment ----


def test_an_event_goes_in_and_its_answer_comes_out(make_pool: PoolMaker) -> None:
    assert answer(invoke(make_pool(), {"seat": "좌석", "large": "x" * 300_000})) == {
        "seat": "좌석",
        "large": "x" * 300_000,
    }


def test_the_context_is_lambdas(make_pool: PoolMaker) -> None:
    pool = make_pool(
        "return [context.aws_request_id, context.function_name, context.function_version, context.memory_limit_in_mb,"
        "context.invoked_function_arn, context.log_group_name, context.log_stream_name,"
        "context.get_remaining_time_in_millis()]"
    )
    *fixed, remaining_ms = answer(invoke(pool, request_id="r-7"))
    arn = "arn:aws:lambda:us-east-1:000000000000:function:encore-sample"
    assert fixed == ["r-7", "encore-sample", "$LATEST", "256", arn, "/aws/lambda/encore-sample", "s"]
    assert 4000 < remaining_ms <= 5000


def test_a_function_sees_its_own_environment_and_nothing_of_ours(
    make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_LOCALSTACK", "1")
    pool = make_pool("return [dict(os.environ), sys.path]", environment={**ENVIRONMENT, "ENCORE_EDGE_TRUST": "open"})
    environment, path = answer(invoke(pool))
    assert environment["ENCORE_EDGE_TRUST"] == "open"
    assert "OF_LOCALSTACK" not in environment
    assert path[0] == pool.spec.path[0]
    assert not [folder for folder in path if "site-packages" in folder]


def test_layers_come_after_the_function(make_pool: PoolMaker, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "shared_code.py").write_text("WHERE = 'layer'")
    pool = make_pool("import shared_code; return shared_code.WHERE")
    folder = pool.spec.path[0]
    with_layer = make_pool("import shared_code; return shared_code.WHERE", path=(folder, str(layer)))
    assert answer(invoke(with_layer)) == "layer"


# ---- one import, many environments ----


def test_environments_fork_from_one_process_that_has_imported(make_pool: PoolMaker) -> None:
    pool = make_pool("time.sleep(0.2); return [IMPORTED_IN, os.getpid(), random.random()]")
    answers = [answer(outcome) for outcome in in_parallel(4, lambda _: invoke(pool))]
    assert len({imported_in for imported_in, _, _ in answers}) == 1
    assert len({pid for _, pid, _ in answers}) == 4
    assert len({number for _, _, number in answers}) == 4, "each environment has its own random numbers"


def test_an_environment_is_used_again(make_pool: PoolMaker) -> None:
    pool = make_pool("return os.getpid()")
    assert len({answer(invoke(pool)) for _ in range(5)}) == 1


def test_at_most_the_limit_run_and_further_calls_wait(make_pool: PoolMaker) -> None:
    pool = make_pool("time.sleep(0.3); return [os.getpid(), time.time()]", environments_max=8)
    invoke(pool)
    started = time.monotonic()
    answers = [answer(outcome) for outcome in in_parallel(12, lambda _: invoke(pool))]
    assert len({pid for pid, _ in answers}) == 8
    assert 0.55 < time.monotonic() - started < 3


def test_waiting_ends_after_the_timeout_and_a_grace(make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encore_lambda_executor.pool.WAIT_GRACE_S", -0.7)
    pool = make_pool("time.sleep(0.9); return 1", environments_max=1, timeout_s=1.0)
    invoke(pool)
    outcomes = in_parallel(2, lambda _: invoke(pool))
    assert {type(outcome) for outcome in outcomes} == {Outcome, NoEnvironmentFree}


# ---- what goes wrong ----


def test_an_exception_is_answered_with_type_message_and_stack(make_pool: PoolMaker) -> None:
    outcome = invoke(make_pool("raise LookupError('no such seat')"), request_id="r-2")
    body = json.loads(outcome.payload)
    assert outcome.is_error
    assert (body["errorType"], body["errorMessage"], body["requestId"]) == ("LookupError", "no such seat", "r-2")
    assert "in handler" in body["stackTrace"][-1]
    assert "runtime.py" not in "".join(body["stackTrace"])
    assert "[ERROR] LookupError: no such seat" in outcome.logs


def test_an_answer_that_is_not_json_is_a_marshal_error(make_pool: PoolMaker) -> None:
    outcome = invoke(make_pool("return object()"))
    assert json.loads(outcome.payload)["errorType"] == "Runtime.MarshalError"


def test_a_timeout_kills_the_environment_and_the_next_call_gets_a_fresh_one(make_pool: PoolMaker) -> None:
    pool = make_pool("print(os.getpid()); time.sleep(event); return os.getpid()", timeout_s=0.5)
    first = answer(invoke(pool, 0))
    outcome = invoke(pool, 30, request_id="r-3")
    assert json.loads(outcome.payload) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": "RequestId: r-3 Error: Task timed out after 0.50 seconds",
    }
    assert "r-3 Task timed out after 0.50 seconds" in outcome.logs
    assert f"\n{first}\n" in outcome.logs, "what it printed before is there"
    assert wait_until(lambda: not is_running(first))
    assert answer(invoke(pool, 0)) != first


@pytest.mark.parametrize(
    ("body", "how"),
    [
        ("os._exit(3)", "exit status 3"),
        ("sys.exit(4)", "exit status 4"),
        ("os.kill(os.getpid(), 9)", "signal: killed"),
        ("os.kill(os.getpid(), 11)", "signal: segmentation fault"),
    ],
)
def test_a_crash_is_an_exit_error(make_pool: PoolMaker, body: str, how: str) -> None:
    pool = make_pool(f"print('so far'); {body} if event == 'crash' else None; return 'fine'")
    outcome = invoke(pool, "crash", request_id="r-4")
    assert json.loads(outcome.payload) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: r-4 Error: Runtime exited with error: {how}",
    }
    assert "so far\n" in outcome.logs
    assert answer(invoke(pool)) == "fine"


@pytest.mark.parametrize(
    ("source", "error_type", "message"),
    [
        ("import nowhere", "Runtime.ImportModuleError", "Unable to import module 'app': No module named 'nowhere'"),
        ("def handler(:", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app'"),
        ("other = 1", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ("raise ValueError('bad setting')", "ValueError", "bad setting"),
        ("import os; os._exit(7)", "Runtime.ExitError", "Runtime exited with error: exit status 7"),
    ],
)
def test_an_init_error_is_the_answer(make_pool: PoolMaker, source: str, error_type: str, message: str) -> None:
    outcome = invoke(make_pool(source=source), request_id="r-5")
    body = json.loads(outcome.payload)
    assert outcome.is_error
    assert (body["errorType"], body["requestId"]) == (error_type, "r-5")
    assert message in body["errorMessage"]
    assert "INIT_REPORT" in outcome.logs


def test_the_next_call_tries_init_again(make_pool: PoolMaker, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    pool = make_pool(source=f"open({str(ready)!r})\ndef handler(event, context): return 'up'")
    assert json.loads(invoke(pool).payload)["errorType"] == "FileNotFoundError"
    ready.touch()
    assert answer(invoke(pool)) == "up"


def test_a_slow_init_times_out(make_pool: PoolMaker) -> None:
    outcome = invoke(make_pool(source="import time; time.sleep(30)", init_timeout_s=0.3))
    assert json.loads(outcome.payload)["errorType"] == "Sandbox.Timedout"


def test_a_killed_template_is_started_again(make_pool: PoolMaker) -> None:
    pool = make_pool("return IMPORTED_IN")
    template = answer(invoke(pool))
    os.kill(template, signal.SIGKILL)
    assert wait_until(lambda: not is_running(template))
    time.sleep(0.1)
    assert answer(invoke(pool)) != template


# ---- logs ----


def test_the_log_has_lambdas_lines_and_all_that_was_printed(make_pool: PoolMaker, tmp_path: Path) -> None:
    log_file = tmp_path / "logs" / "encore-sample.log"
    body = (
        "import logging; print('out'); print('err', file=sys.stderr); logging.warning('seats low'); os.write(1, b'raw')"
    )
    pool = make_pool(body, log_file=log_file)
    first, second = invoke(pool, request_id="r-8"), invoke(pool, request_id="r-9")
    lines = first.logs.splitlines()
    assert lines[:2] == ["INIT_START Runtime Version: python:3.13", "importing"]
    assert lines[3:6] == ["START RequestId: r-8 Version: $LATEST", "out", "err"]
    assert lines[6].startswith("[WARNING]\t") and lines[6].endswith("\tr-8\tseats low")
    assert lines[7:9] == ["raw", "END RequestId: r-8"]
    assert lines[9].startswith("REPORT RequestId: r-8\tDuration: ") and "Memory Size: 256 MB" in lines[9]
    assert "r-8" not in second.logs and "importing" not in second.logs
    assert log_file.read_text() == first.logs + second.logs


# ---- the end ----


def test_a_replaced_version_finishes_its_calls_and_takes_no_more(make_pool: PoolMaker) -> None:
    pool = make_pool("time.sleep(event); return [IMPORTED_IN, os.getpid()]")
    template, idle = answer(invoke(pool, 0))
    results: list[Outcome] = []
    busy = threading.Thread(target=lambda: results.append(invoke(pool, 0.5)))
    busy.start()
    time.sleep(0.2)
    pool.close()
    with pytest.raises(PoolClosed):
        invoke(pool, 0)
    busy.join()
    assert answer(results[0]) == [template, idle]
    assert wait_until(lambda: not is_running(template) and not is_running(idle))


def test_all_processes_die_with_the_one_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import os\ndef handler(event, context): return [os.getppid(), os.getpid()]")
    script = textwrap.dedent(f"""
        import time
        from encore_lambda_executor.pool import Call, FunctionPool, FunctionSpec
        pool = FunctionPool(FunctionSpec("f", "1", "app.handler", ({str(tmp_path)!r},), {ENVIRONMENT!r}, 5.0, 128))
        print(pool.invoke(Call("r", "arn", b"null")).payload.decode(), flush=True)
        time.sleep(60)
    """)
    home = Path(sys.modules["encore_lambda_executor"].__path__[0]).parent
    owner = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(home)}, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    with owner.stdout:
        pids = json.loads(owner.stdout.readline())
        assert all(is_running(pid) for pid in pids)
        owner.kill()
        owner.wait()
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))
