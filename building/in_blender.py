"""The extension installed in Blender as a module, for the demo and the end-to-end test.

Runs in Blender's Python (`.venv-blender`). Blender keeps preferences and extensions in its user's folders; a temporary
one stands for them here, so that nobody's own Blender is touched.
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
        raise RuntimeError("bpy is imported already, and with it the user's own folder: install the extension first.")
    with tempfile.TemporaryDirectory(prefix="effigy-blender-") as folder:
        # Blender reads this once, when bpy is first imported.
        os.environ["BLENDER_USER_RESOURCES"] = folder
        os.environ.setdefault("EFFIGY_BACKEND_PYTHON", str(BACKEND.python))
        import bpy

        bpy.ops.extensions.package_install_files(filepath=str(package), repo="user_default", enable_on_install=True)
        if PACKAGE not in bpy.context.preferences.addons:
            raise RuntimeError("The extension was installed and could not be enabled.")
        try:
            bpy.ops.wm.read_homefile(use_empty=True)
            yield
        finally:
            # This ends the worker as well, before its folder goes.
            bpy.ops.preferences.addon_disable(module=PACKAGE)
