"""LocalStack is started with the settings that our plugins need: without them it listens on every interface."""

from pathlib import Path

from encore_stack.instance import Instance
from encore_stack.parts.localstack import localstack_environment


def test_localstack_keeps_to_loopback_and_to_its_folder(tmp_path: Path) -> None:
    instance = Instance("sample", tmp_path, ports={"localstack": 4566})
    environment = localstack_environment(instance)
    assert environment["GATEWAY_SERVER"] == "encore", "LocalStack's own server binds 0.0.0.0"
    assert environment["GATEWAY_LISTEN"] == "127.0.0.1:4566"
    assert environment["DNS_ADDRESS"] == "0"
    assert environment["LAMBDA_RUNTIME_EXECUTOR"] == "encore"
    # In any container LocalStack would take /var/lib/localstack for its own.
    assert environment["OVERRIDE_IN_DOCKER"] == "0"
    for name in ("TMPDIR", "XDG_CACHE_HOME", "FILESYSTEM_ROOT", "CONFIG_DIR", "LOCALSTACK_VOLUME_DIR", "HOME"):
        assert Path(environment[name]).is_relative_to(instance.dir), name
