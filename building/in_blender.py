"""Installs the extension in Blender as a Python module, for the demo and the end-to-end test.

It runs in `.venv-blender`. Blender stores preferences and extensions in the user's folders; here it is given a
temporary folder, so that the user's own Blender stays as it is.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .environments import BACKEND

PACKAGE = "bl_ext.user_default.effigy"


@contextmanager
def installed_extension(package: Path) -> Iterator[None]:
    """Install and enable the zip `package`, as Get Extensions ▸ Install from Disk does, before any `import bpy`."""
    if "bpy" in sys.modules:
        raise RuntimeError(
            "bpy was imported too early: install the extension first, so that Blender uses a temporary folder."
        )
    with tempfile.TemporaryDirectory(prefix="effigy-blender-") as folder:
        # Blender reads this variable only once, when bpy is first imported.
        os.environ["BLENDER_USER_RESOURCES"] = folder
        os.environ.setdefault("EFFIGY_BACKEND_PYTHON", str(BACKEND.python))
        import bpy

        bpy.ops.extensions.package_install_files(filepath=str(package), repo="user_default", enable_on_install=True)
        if PACKAGE not in bpy.context.preferences.addons:
            raise RuntimeError("The extension was installed but could not be enabled.")
        try:
            bpy.ops.wm.read_homefile(use_empty=True)
            yield
        finally:
            # This also stops the worker, before the temporary folder is deleted.
            bpy.ops.preferences.addon_disable(module=PACKAGE)
