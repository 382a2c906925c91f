"""Sizes of the human eye, which differ little between people."""

from __future__ import annotations

IRIS_RADIUS = 0.0059
"""Metres."""
PUPIL_RADIUS = 0.0022
"""Metres, in ordinary light."""
