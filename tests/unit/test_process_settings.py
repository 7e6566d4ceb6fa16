"""Tools that call the bundle's own code: its settings are the instance's, and it writes nothing into their output."""

import subprocess
import sys
from pathlib import Path

from encore_stack.instance import Instance
from encore_stack.ports import DEFAULT_PORTS

_TOOL = """
from pathlib import Path
from aws_lambda_powertools.metrics import MetricUnit
from booking.platform.settings import settings
from booking.platform.telemetry import logger, measure
from encore_stack.instance import Instance
from encore_stack.process_settings import adopt_settings

adopt_settings(Instance.load("main", Path(__import__("sys").argv[1])))
logger().error("long lock cannot be ended")
measure("LongLock", 2.5, MetricUnit.Seconds)
print(settings().danal_url)
"""


def test_a_tool_has_the_instances_settings_and_its_output_for_itself(tmp_path: Path) -> None:
    instance = Instance("main", tmp_path, dict(DEFAULT_PORTS))
    instance.make_dirs()
    instance.save_config()

    done = subprocess.run([sys.executable, "-c", _TOOL, tmp_path], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == (f"{instance.url('danal')}\n", "")
