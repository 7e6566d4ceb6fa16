"""``rediss`` in place of ``redis``: a server, a sentinel and a node of a cluster that speak nothing but TLS."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from booking.platform.redis import Script, redis
from redis import Redis
from support.redis import start_server

_KEY = "tls:{c1}"
_SET = Script("return redis.call('SET', KEYS[1], ARGV[1])")
_NAMES = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1; its key lies beside it."""
    folder = tmp_path_factory.mktemp("tls")
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subprocess.run(["openssl", "req", "-x509", "-nodes", "-days", "1", *curve, *files, *_NAMES], check=True)
    return folder / "certificate.pem"


@pytest.fixture
def start(certificate: Path, free_port: Callable[[], int], tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a server that takes TLS only; returns its port."""
    with ExitStack() as processes:

        def start_tls(*lines: str, sentinel: bool = False) -> int:
            port = free_port()
            tls = [
                "port 0",
                f"tls-port {port}",
                f"tls-cert-file {certificate}",
                f"tls-key-file {certificate.with_name('key.pem')}",
                f"tls-ca-cert-file {certificate}",
                "tls-auth-clients no",
                "tls-replication yes",
                "tls-cluster yes",
            ]
            start_server(processes, tmp_path / str(port), [*tls, *lines], sentinel=sentinel)
            return port

        yield start_tls


def ask(url: str, use_settings: Callable[..., None]) -> bytes:
    use_settings(queue_redis_url=url)
    assert _SET(redis("queue"), [_KEY], ["spoken"]) == b"OK"
    return bytes(redis("queue").get(_KEY))


def test_one_server(certificate: Path, start: Callable[..., int], use_settings: Callable[..., None]) -> None:
    port = start()

    assert ask(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}", use_settings) == b"spoken"
    with pytest.raises(RedisError, match="certificate"):
        ask(f"rediss://127.0.0.1:{port}/0", use_settings)


def test_sentinel(certificate: Path, start: Callable[..., int], use_settings: Callable[..., None]) -> None:
    sentinel = start(f"sentinel monitor encore 127.0.0.1 {start()} 1", sentinel=True)

    url = f"rediss+sentinel://127.0.0.1:{sentinel}/encore/0?ssl_ca_certs={certificate}"
    assert ask(url, use_settings) == b"spoken"


def test_cluster(
    certificate: Path, start: Callable[..., int], free_port: Callable[[], int], use_settings: Callable[..., None]
) -> None:
    port = start("cluster-enabled yes", f"cluster-port {free_port()}")
    with Redis("127.0.0.1", port, ssl=True, ssl_ca_certs=str(certificate)) as node:
        node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
    use_settings(redis_timeout_s=20)  # a node that starts answers after two seconds

    # It does not know its own address: it is where it was asked.
    assert ask(f"rediss+cluster://127.0.0.1:{port}?ssl_ca_certs={certificate}", use_settings) == b"spoken"
