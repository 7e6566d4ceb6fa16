"""The stand-in for a notifier: writes where a person can read it what people would have been told."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from booking.platform.telemetry import logger

if TYPE_CHECKING:
    from booking.tickets.notices import Notice

FILE_NAME = "notices.log"
_HEADER = "# A stand-in for a notifier: what people would have been told, one line each. Nothing was sent to anybody.\n"


class FileNotifier:
    """Appends to ``notices.log`` in the folder of a ``file:///…`` URL."""

    def __init__(self, url: str) -> None:
        self._file = Path(unquote(urlsplit(url).path)) / FILE_NAME

    def send(self, notices: Sequence["Notice"]) -> list[str]:
        lines = [f"{n.created_at}  person {n.person}  reservation {n.reservation_id}  {n.message}\n" for n in notices]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as file:
                file.write("".join([_HEADER, *lines] if file.tell() == 0 else lines))
        except OSError as fault:
            logger().warning("notices not written", file=str(self._file), reason=repr(fault))
            return []
        return [notice.event_id for notice in notices]
