"""How fast faces come, and when they have stopped coming."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

LOST_SECONDS: Final = 1.5
"""After so long without anything, the sender is said to be lost."""
RATE_FACES: Final = 60
"""Of which the rate is the mean."""


class Rate:
    """Counts what comes, for a rate over the last moment and for noticing that nothing does."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=RATE_FACES)
        self._begun = time.monotonic()

    def count(self, now: float) -> None:
        self._times.append(now)

    @property
    def silent_for(self) -> float:
        """Seconds."""
        return time.monotonic() - (self._times[-1] if self._times else self._begun)

    @property
    def heard(self) -> bool:
        return bool(self._times)

    @property
    def per_second(self) -> float:
        if len(self._times) < 2 or self.silent_for > LOST_SECONDS:
            return 0.0
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-6)
