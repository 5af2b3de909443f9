"""What decoders say while they work, collected instead of printed.

imagecodecs and tifffile report what they pass over to Python's log, from where it would reach the
terminal without the name of the file.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("imagecodecs", "tifffile")
_LONGEST = 200


class _Collector(logging.Filter):
    """Takes the messages of a thread that collects them; those of other threads pass."""

    def __init__(self) -> None:
        super().__init__()
        self.of_thread = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        collected: list[str] | None = getattr(self.of_thread, "messages", None)
        if collected is None:
            return True
        collected.append(" ".join(record.getMessage().split())[:_LONGEST])
        return False


_COLLECTOR = _Collector()
for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_COLLECTOR)


@contextmanager
def collected_messages() -> Iterator[list[str]]:
    """Collect what decoders say in this thread; the list grows as they do."""
    outer = getattr(_COLLECTOR.of_thread, "messages", None)
    messages: list[str] = []
    _COLLECTOR.of_thread.messages = messages
    try:
        yield messages
    finally:
        _COLLECTOR.of_thread.messages = outer
