"""Effigy's backend: a video of a person becomes a head avatar. Plain Python; it never imports bpy."""

import os

from .allocation import keep_freed_memory

__version__ = "0.1.0"
"""Effigy's version. `pyproject.toml` and the extension's manifest have the same; a test compares them."""

# By default, PyTorch's idle threads spin and take CPU time from other work: Blender, our own kernels, another training.
# The variable is read once, when torch is first imported, which is always after this line.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

keep_freed_memory()
