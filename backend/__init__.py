"""Effigy's backend: a video of a person becomes a head avatar. Plain Python; it never imports bpy."""

import os

from .allocation import keep_freed_memory

__version__ = "0.1.0"
"""Of Effigy. `pyproject.toml` and the extension's manifest hold the same; a test compares them."""

# PyTorch's idle threads otherwise spin for work and take the cores from whatever else runs: Blender, our own kernels,
# another training. Read once, when torch is first imported, which is always after this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

keep_freed_memory()
