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

from encore_lambda_executor import hot_reload
from encore_lambda_executor.hot_reload import HotPool, ReloadLog, fingerprint
from encore_lambda_executor.pool import (
    Call,
    FunctionPool,
    FunctionSpec,
    InitFailed,
    NoEnvironmentFree,
    Outcome,
    PoolClosed,
)
from support.waiting import wait_for

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


def invoke(pool: FunctionPool | HotPool, event: object = None, request_id: str = "r-1") -> Outcome:
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
    wait_for(lambda: not is_running(first), within_s=5)
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
    wait_for(lambda: not is_running(template), within_s=5)
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


def test_a_failed_import_is_logged_by_the_call_that_follows_or_else_at_once(
    make_pool: PoolMaker, tmp_path: Path
) -> None:
    log_file = tmp_path / "encore-sample.log"
    pool = make_pool(source="import nowhere", log_file=log_file)
    with pytest.raises(InitFailed):
        pool.warm(for_call=True)
    invoke(pool)
    assert log_file.read_text().count("INIT_REPORT") == 1

    with pytest.raises(InitFailed):
        pool.warm(for_call=False)
    assert log_file.read_text().count("INIT_REPORT") == 2


def test_what_a_long_call_prints_is_in_the_log_while_it_works(
    make_pool: PoolMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encore_lambda_executor.pool.LOG_WRITTEN_EACH_S", 0.02)
    log_file, more, done = tmp_path / "encore-sample.log", tmp_path / "more", tmp_path / "done"
    body = (
        "print('one'); print('half ', end='', flush=True);"
        f" [time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(more)!r}), True)]; print('two');"
        f" [time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(done)!r}), True)]; print('three')"
    )
    pool = make_pool(body, log_file=log_file)
    outcomes: list[Outcome] = []
    call = threading.Thread(target=lambda: outcomes.append(invoke(pool, request_id="r-10")))
    call.start()

    def shows(line: str) -> bool:
        return log_file.exists() and line in log_file.read_text()

    wait_for(lambda: shows("one\nRUNNING RequestId: r-10\n"), within_s=5)
    more.touch()
    wait_for(lambda: shows("half two\nRUNNING RequestId: r-10\n"), within_s=5)
    done.touch()
    call.join(10)

    [outcome] = outcomes
    assert "\none\nhalf two\nthree\nEND RequestId: r-10\nREPORT " in outcome.logs
    assert log_file.read_text().replace("RUNNING RequestId: r-10\n", "") == outcome.logs


# ---- hot reload ----


class HotFunction:
    """A function and a layer in folders of the test's own, and the pool that runs what is saved there."""

    def __init__(self, folder: Path, *, is_loop: bool = False, **settings: Any) -> None:
        self.app, self.layer = folder / "function" / "app.py", folder / "layer"
        self.app.parent.mkdir()
        self.layer.mkdir()
        self.log_file, self.reloads = folder / "encore-sample.log", folder / "reloads.jsonl"
        path = (str(self.app.parent), str(self.layer))
        values: dict[str, Any] = {"environment": ENVIRONMENT, "timeout_s": 5.0, "memory_mb": 256} | settings
        spec = FunctionSpec(
            "encore-sample", "$LATEST", "app.handler", path, watched=path, log_file=self.log_file, **values
        )
        self.save("return 1")
        self.pool = HotPool(spec, ReloadLog(self.reloads), is_loop=is_loop)

    def save(self, body: str, *, top: str = "") -> None:
        self.app.write_text(f"import os, time\n{top}\ndef handler(event, context):\n    {body}\n")

    def answer(self, event: object = None) -> Any:
        return answer(invoke(self.pool, event))

    def error(self) -> dict[str, Any]:
        outcome = invoke(self.pool)
        assert outcome.is_error
        body: dict[str, Any] = json.loads(outcome.payload)
        return body

    def loadings(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.reloads.read_text().splitlines()]


@pytest.fixture
def make_hot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., HotFunction]]:
    monkeypatch.setattr(hot_reload, "KEEPER_S", 60.0)  # only the test that wants it runs it: nothing else by chance
    made: list[HotFunction] = []

    def make(**settings: Any) -> HotFunction:
        made.append(HotFunction(tmp_path, **settings))
        return made[-1]

    yield make
    for function in made:
        function.pool.close()


MakeHot = Callable[..., HotFunction]


def test_the_call_after_a_save_runs_what_was_saved(make_hot: MakeHot) -> None:
    function = make_hot()
    assert function.answer() == 1

    for number in (2, 3, 4):  # within a second, and of the same size: a cached module would pass for current
        function.save(f"return {number}")
        assert function.answer() == number
    assert not list(function.app.parent.glob("__pycache__"))


def test_without_looking_at_the_files_old_code_is_run(make_hot: MakeHot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of all that follows."""
    function = make_hot()
    assert function.answer() == 1
    monkeypatch.setattr(hot_reload, "fingerprint", lambda folders, seen=function.pool._seen: seen)

    function.save("return 2")

    assert function.answer() == 1


def test_a_module_cached_by_somebody_else_is_not_believed(make_hot: MakeHot) -> None:
    function = make_hot()
    function.app.write_text("import shared\ndef handler(event, context): return shared.VALUE")
    shared = function.layer / "shared.py"
    shared.write_text("VALUE = 1")
    stamp = shared.stat()
    subprocess.run([sys.executable, "-m", "py_compile", str(shared)], check=True)
    shared.write_text("VALUE = 2")
    os.utime(shared, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as if within the second

    assert function.answer() == 2


@pytest.mark.parametrize("name", ["shared.sql", "nested/shared.lua", "nested/shared.py"])
def test_files_of_a_layer_count_as_well(make_hot: MakeHot, name: str) -> None:
    function = make_hot()
    file = function.layer / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("a")
    function.save("return TEXT", top=f"TEXT = open({str(file)!r}).read()")
    assert function.answer() == "a"

    file.write_text("b")
    assert function.answer() == "b"
    draft = file.with_name("draft.tmp")  # as many editors save
    draft.write_text("c")
    draft.replace(file)
    assert function.answer() == "c"


def test_what_editors_and_python_leave_is_no_change(make_hot: MakeHot) -> None:
    function = make_hot()
    before = function.answer(), fingerprint(function.pool.spec.watched)

    (function.app.parent / ".app.py.swp").write_text("x")
    (function.app.parent / "app.py~").write_text("x")
    (function.app.parent / "__pycache__").mkdir()
    (function.app.parent / "__pycache__" / "app.cpython-313.pyc").write_text("x")

    assert (function.answer(), fingerprint(function.pool.spec.watched)) == before
    assert len(function.loadings()) == 1


def test_a_broken_save_is_answered_with_file_and_line_and_its_mending_heals(make_hot: MakeHot) -> None:
    function = make_hot()
    function.answer()

    function.save("return (", top="")
    error = function.error()

    assert error["errorType"] == "Runtime.UserCodeSyntaxError"
    assert f'File "{function.app}", line 4' in error["stackTrace"][-1]
    assert f'File "{function.app}", line 4' in function.log_file.read_text()
    assert function.loadings()[-1]["error"]["errorType"] == "Runtime.UserCodeSyntaxError"
    function.save("return 2")
    assert function.answer() == 2
    assert function.loadings()[-1]["error"] is None


def test_a_broken_import_and_a_deleted_file_heal_as_well(make_hot: MakeHot) -> None:
    function = make_hot()
    function.answer()
    function.save("return 2", top="import shared")
    assert "No module named 'shared'" in function.error()["errorMessage"]
    (function.layer / "shared.py").write_text("")
    assert function.answer() == 2

    function.app.unlink()
    assert "No module named 'app'" in function.error()["errorMessage"]
    function.save("return 3")
    assert function.answer() == 3


def test_a_call_under_way_finishes_on_the_code_that_it_began_with(make_hot: MakeHot) -> None:
    function = make_hot()
    function.save("time.sleep(event); return ['old', os.getpid()]")
    _, pid = function.answer(0)
    results: list[Any] = []
    busy = threading.Thread(target=lambda: results.append(function.answer(1.5)))
    busy.start()
    time.sleep(0.2)

    function.save("return 'new'")

    assert function.answer() == "new"
    assert busy.is_alive()
    busy.join()
    assert results == [["old", pid]]
    wait_for(lambda: not is_running(pid), within_s=5)


def test_calls_during_a_burst_of_saves_never_meet_older_code_than_was_saved(make_hot: MakeHot) -> None:
    function = make_hot()
    saved = 1
    stop = threading.Event()
    wrong: list[tuple[int, int]] = []

    def call(_: int) -> None:
        while not stop.is_set():
            known = saved
            got = function.answer()
            if got < known:
                wrong.append((known, got))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for number in range(2, 12):
        draft = function.app.with_name("draft.tmp")
        draft.write_text(f"def handler(event, context): return {number}")
        draft.replace(function.app)
        saved = number
        time.sleep(0.03 if number % 4 else 0.3)
    assert function.answer() == 11
    stop.set()
    for caller in callers:
        caller.join()

    assert not wrong
    assert len(function.loadings()) < 11, "what is saved at once is loaded at once"


def test_a_half_written_file_is_waited_for(make_hot: MakeHot) -> None:
    function = make_hot()
    function.answer()
    results: list[Any] = []

    with function.app.open("w") as file:  # emptied now, filled later
        call = threading.Thread(target=lambda: results.append(function.answer()))
        call.start()
        time.sleep(0.02)
        file.write("def handler(event, context):\n")
        file.flush()
        time.sleep(0.02)
        file.write("    return 'whole'\n")
    call.join()

    assert results == ["whole"]


def test_a_function_in_use_is_ready_before_its_next_call(make_hot: MakeHot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_reload, "KEEPER_S", 0.02)
    monkeypatch.setattr(hot_reload, "keeper", hot_reload._Keeper())
    function = make_hot()
    function.answer()

    function.save("return 2")
    wait_for(lambda: len(function.loadings()) == 2, within_s=5)
    function.save("return 3")  # not called since: left for its next call
    time.sleep(0.3)

    assert len(function.loadings()) == 2
    assert function.answer() == 3


def test_a_loop_goes_on_with_the_new_code(make_hot: MakeHot, tmp_path: Path) -> None:
    function = make_hot(is_loop=True, timeout_s=30.0)
    function.save("open(event, 'a').write('old ')\n    time.sleep(20)")
    began, results = tmp_path / "began", list[Any]()
    loops = [threading.Thread(target=lambda: results.append(invoke(function.pool, str(began)))) for _ in range(2)]
    for loop in loops:
        loop.start()
    wait_for(lambda: began.exists() and began.read_text() == "old old ", within_s=5)

    function.save("return (")
    function.pool.refresh()
    assert all(loop.is_alive() for loop in loops), "code that cannot be loaded ends nothing"
    function.save("return 'new'")
    function.pool.refresh()
    for loop in loops:
        loop.join()

    payloads = sorted(outcome.payload.decode() for outcome in results)
    assert payloads[0] == '"new"', "one is begun again"
    assert "its code was replaced" in payloads[1], "two that begin together would end together"


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
    wait_for(lambda: not is_running(template) and not is_running(idle), within_s=5)


def test_a_version_that_is_cut_off_ends_its_calls(make_pool: PoolMaker) -> None:
    pool = make_pool("time.sleep(event)")
    invoke(pool, 0)
    results: list[Outcome] = []
    busy = threading.Thread(target=lambda: results.append(invoke(pool, 4)))
    busy.start()
    time.sleep(0.2)

    pool.cut_off()

    busy.join(1)
    assert "its code was replaced" in json.loads(results[0].payload)["errorMessage"]
    with pytest.raises(PoolClosed):
        invoke(pool, 0)


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
    wait_for(lambda: not any(is_running(pid) for pid in pids), within_s=5)
