"""The border between the networks' colours and Blender's: the one place where a picture changes its colour space.

The networks give sRGB-encoded colour, premultiplied. Blender's Combined is scene-linear, premultiplied: so the colour
is divided by alpha, decoded, taken to the scene's primaries and multiplied again. Only the Standard view transform then
shows the footage's own values; AgX and Filmic take them for light and grade them.
"""

from __future__ import annotations

from typing import Final

import bpy
import numpy as np
from mathutils import Color

NOTHING: Final = np.float32(1e10)
"""Blender's own depth where nothing is."""


def combined(color: np.ndarray, alpha: np.ndarray, background: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) encoded and (H, W) -> the pass Combined (H, W, 4) float32; `background` (3,) scene-linear, or None.

    A background is put behind in encoded values, as the networks were trained to be seen: their soft edges are right so,
    and in linear light a bright rim would stand around dark hair. That light is how Blender's compositor mixes, so a
    transparent film has such edges in it.
    """
    picture = np.zeros((*alpha.shape, 4), np.float32)
    if background is not None:
        picture[...] = (*background, 1)
    # A head fills a part of a picture, and decoding is what costs.
    covered = alpha > 1e-6
    share = np.minimum(alpha[covered], 1)[:, None]
    straight = np.clip(color[covered] / alpha[covered][:, None], 0, 1)
    primaries = _primaries()
    if background is None:
        light, opacity = _decode(straight) * share, share
    else:
        behind = background if primaries is None else np.maximum(background @ np.linalg.inv(primaries), 0)
        light, opacity = _decode(straight * share + (1 - share) * _encode(behind)), np.ones_like(share)
    picture[covered] = np.concatenate((light if primaries is None else light @ primaries, opacity), -1)
    return picture


def depth_pass(depth: np.ndarray) -> np.ndarray:
    """(H, W) metres, infinity where nothing is -> the pass Depth, with Blender's value there."""
    return np.where(np.isfinite(depth), depth, NOTHING).astype(np.float32)


def world_color(scene: bpy.types.Scene) -> np.ndarray:
    """(3,) scene-linear: the plain colour of the scene's world, black without one.

    Of a world with nodes it is the Background node's colour times its strength; a picture in that node's place is for
    engines with light, here the colour beneath counts.
    """
    world = scene.world
    if world is None:
        return np.zeros(3)
    # From Blender 5 on a world that has nodes uses them, and asking is deprecated.
    if world.node_tree is None or (bpy.app.version < (5, 0, 0) and not world.use_nodes):
        return np.array(world.color)
    backgrounds = (node for node in world.node_tree.nodes if node.bl_idname == "ShaderNodeBackground" and not node.mute)
    node = next(backgrounds, None)
    if node is None:
        return np.zeros(3)
    return np.array(node.inputs["Color"].default_value[:3]) * node.inputs["Strength"].default_value


def _decode(encoded: np.ndarray) -> np.ndarray:
    """SRGB to linear light (IEC 61966-2-1), component by component."""
    low = encoded <= 0.04045
    return np.where(low, encoded / 12.92, ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encode(light: np.ndarray) -> np.ndarray:
    """The other way; brighter than white goes on along the same curve."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def _primaries() -> np.ndarray | None:
    """(3, 3) by which rows of Rec. 709 light become the scene's, None where they are the same (Blender's default)."""
    rows = np.array([Color(axis).from_rec709_linear_to_scene_linear() for axis in np.eye(3)], np.float32)
    return None if np.allclose(rows, np.eye(3), atol=1e-4) else rows
