"""Where the time of an analysis goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageTimer:
    """Sums seconds by stage: `with clock("detect"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the enclosed block."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begin
