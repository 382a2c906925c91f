"""How far the jaw and the eyes rotate, in degrees; the same as in the backend (`head/jaw.py`), which a test compares.

This module does not import bpy.
"""

from __future__ import annotations

from typing import Final

JAW_OPEN: Final = (-4.0, 40.0)
JAW_SIDEWAYS: Final = (-12.0, 12.0)
"""Beyond these the jaw is out of its socket. A transferred performance is clipped there too."""
JAW_OPEN_AT_ONE: Final = 19.17
"""By how much the slider jawOpen at 1 turns the jaw of the open head."""
JAW_TURNS: Final = {
    "jawOpen": (JAW_OPEN_AT_ONE, 0.0, 0.0),
    "jawLeft": (-1.18, 3.06, 3.08),
    "jawRight": (-1.18, -3.06, -3.08),
}
"""Axis-angle of the open head's jaw joint, head space, that moves the chin as a slider at 1 does."""
GAZE_SIDEWAYS: Final = 45.0
GAZE_UP: Final = 35.0
"""An eye turns as far in both directions."""
NECK: Final = 60.0
"""In each direction. The backend does not limit the neck."""
LOOK_SIDEWAYS: Final = 25.0
LOOK_UP: Final = 19.0
"""The rotation of an eye that the lids follow with an eyeLook slider at 1 (`retargeting/livelink.py`)."""
