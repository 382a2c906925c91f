"""What a row of `bench.faults` gets and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where a row may write. Everything else is read-only for it and for the programs that it starts."""

    scratch: Path
    """An empty folder on the disk."""
    small_disk: Path
    """An empty file system in memory of `bench.fault_sandbox.SMALL_DISK_BYTES`, to be filled."""
    home: Path
    """The home folder of the programs; it holds the compiled kernels of the splatting."""


@dataclass
class Outcome:
    """What a row has tried and what failed."""

    tried: int = 0
    failures: list[str] = field(default_factory=list)
    """A line for each try that failed: what was tried and what happened."""
    figures: dict[str, str] = field(default_factory=dict)
    """Measurements, such as {"largest memory": "310 MB"}; the last column of the table."""

    def record(self, description: str, failure: str | None) -> None:
        """Count one try. `failure` says what went wrong, or is None."""
        self.tried += 1
        if failure is not None:
            self.failures.append(f"{description}: {failure}")
