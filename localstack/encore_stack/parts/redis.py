"""Redis: one server for the waiting line, the locks and the cache (three URLs, so that they can be split)."""

import socket

from encore_stack.instance import PROJECT_DIR, Instance, write_atomically
from encore_stack.parts.base import PROBE_TIMEOUT_S, Part, Unhealthy, find_program
from encore_stack.ports import HOST


class Redis(Part):
    name = "redis"

    def prepare(self, instance: Instance) -> None:
        data = instance.data_dir(self.name)
        data.mkdir(parents=True, exist_ok=True)
        settings = (PROJECT_DIR / "localstack" / "redis" / "redis.conf").read_text()
        settings += f'\nport {instance.ports[self.name]}\ndir "{data}"\n'
        write_atomically(instance.run_dir / "redis.conf", settings)

    def command(self, instance: Instance) -> list[str]:
        return [find_program("redis-server"), str(instance.run_dir / "redis.conf")]

    def probe(self, instance: Instance) -> None:
        try:
            with socket.create_connection((HOST, instance.ports[self.name]), timeout=PROBE_TIMEOUT_S) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError as error:
            raise Unhealthy(f"PING: {error.strerror or error}") from error
        if answer != b"+PONG\r\n":  # -LOADING while it reads its files
            raise Unhealthy(f"PING: {answer.decode(errors='replace').strip() or 'no answer'}")
