"""The file formats of rendered frames; their writers are in `backend.formats.image_files`.

The names stand apart from the writers so that the command line can list them without importing video libraries.
"""

from __future__ import annotations

from typing import Final

FRAME_FORMATS: Final = ("png", "exr", "mp4")
