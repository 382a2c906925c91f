"""Memory that was freed is used again instead of being asked of the system anew."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    import backend
for count in range(60):
    if count == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pictures = [np.ones(2**20, np.uint8) for _ in range(8)]
    del pictures
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="only glibc gives memory back at once",
)
def test_pictures_made_one_after_the_other_take_the_memory_of_those_before() -> None:
    given_back, kept = (int(subprocess.check_output([sys.executable, "-c", PROGRAM, how])) for how in ("plain", "kept"))
    assert kept < given_back / 5
