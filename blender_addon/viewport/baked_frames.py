"""Where the frames of a bake are: in memory, or in a file.

The file is written and read in whole frames with ordinary calls. It is not mapped into memory: where the disk is full,
writing to a mapped file ends Blender with the signal SIGBUS, while `write` gives an error.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from ..errors import EffigyError

SINGLES: Final = 3
"""Columns of a Gaussian in single precision."""
HALVES: Final = 11
"""Columns in half precision."""
BYTES_PER_SPLAT: Final = SINGLES * 4 + HALVES * 2


class BakedFrames(Protocol):
    """F frames of G Gaussians each, numbered from 0."""

    count: int
    """F"""
    gaussians: int
    """G"""

    def store(self, index: int, singles: np.ndarray, halves: np.ndarray) -> None:
        """Stores a frame: (G, 3) float32 and (G, 11) float16. Raises an `EffigyError` if there is no room for it."""
        ...

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A frame that was stored. Raises an `EffigyError` if it cannot be read any more."""
        ...

    def free(self) -> None:
        """Frees the memory or deletes the file."""
        ...


class FramesInMemory:
    def __init__(self, count: int, gaussians: int) -> None:
        """Raises a `MemoryError`."""
        self.count, self.gaussians = count, gaussians
        self._singles = np.zeros((count, gaussians, SINGLES), np.float32)
        self._halves = np.zeros((count, gaussians, HALVES), np.float16)

    def store(self, index: int, singles: np.ndarray, halves: np.ndarray) -> None:
        self._singles[index], self._halves[index] = singles, halves

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._singles[index].copy(), self._halves[index].copy()

    def free(self) -> None:
        self._singles, self._halves = self._singles[:0], self._halves[:0]


class FramesOnDisk:
    def __init__(self, count: int, gaussians: int, home: Path) -> None:
        """Makes a folder of its own in `home`. Raises an `OSError`."""
        self.count, self.gaussians = count, gaussians
        self.folder = Path(tempfile.mkdtemp(prefix="bake-", dir=home))
        self._file = (self.folder / "frames").open("w+b", buffering=0)

    def store(self, index: int, singles: np.ndarray, halves: np.ndarray) -> None:
        frame = memoryview(singles.astype(np.float32).tobytes() + halves.astype(np.float16).tobytes())
        try:
            self._file.seek(index * len(frame))
            while frame:
                frame = frame[self._file.write(frame) :]
        except OSError as error:
            raise EffigyError(
                f"The bake could not be written to {self.folder} ({error.strerror or error}): free some space, or bake "
                "to memory. The frames before this one are kept."
            ) from error

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        size = self.gaussians * BYTES_PER_SPLAT
        try:
            self._file.seek(index * size)
            data = self._file.read(size)
        except OSError as error:
            raise EffigyError(f"The bake in {self.folder} cannot be read ({error.strerror or error}).") from error
        if len(data) != size:
            raise EffigyError(f"The bake in {self.folder} was changed by another program: bake again.")
        split = 4 * SINGLES * self.gaussians
        return (
            np.frombuffer(data[:split], np.float32).reshape(self.gaussians, SINGLES),
            np.frombuffer(data[split:], np.float16).reshape(self.gaussians, HALVES),
        )

    def free(self) -> None:
        self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)
