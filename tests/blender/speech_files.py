"""A line of dialogue for lip sync: a sound, and the table of its phones beside it."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

RATE = 16_000


def write_speech(path: Path) -> Path:
    """Two seconds of sound at `path`, and Rhubarb's table beside it: from 1.0 to 1.2 seconds the lips are closed
    between open vowels.
    """
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((8000 * np.sin(np.arange(2 * RATE) / 10)).astype(np.int16).tobytes())
    path.with_suffix(".tsv").write_text("0.00\tX\n0.50\tD\n1.00\tA\n1.20\tD\n1.70\tX\n")
    return path
