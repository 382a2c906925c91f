"""Converts the networks' colours to Blender's. This is the only place where an image changes its colour space.

The networks give sRGB-encoded colour, premultiplied. Blender's Combined pass is scene-linear, premultiplied. The colour
is therefore divided by alpha, decoded, converted to the scene's primaries and multiplied by alpha again. Only the
Standard view transform then shows the values of the footage; AgX and Filmic treat them as light and grade them.
"""

from __future__ import annotations

from typing import Final

import bpy
import numpy as np
from mathutils import Color

from ..srgb import decode, encode

EMPTY_DEPTH: Final = np.float32(1e10)
"""Blender's depth for pixels without an object."""


def combined_pass(color: np.ndarray, alpha: np.ndarray, hole: np.ndarray, background: np.ndarray | None) -> np.ndarray:
    """The Combined pass (H, W, 4) float32 from sRGB-encoded, premultiplied `color` (H, W, 3) and `alpha` (H, W). `hole`
    (H, W) is the share of each pixel that stays empty, in front of a background as well.

    `background` is a scene-linear colour (3,), or None for a transparent film. It is blended in encoded values, as the
    networks were trained, which gives correct soft edges; blending in linear light would give dark hair a bright rim.
    Blender's compositor blends in linear light, so avatars on a transparent film do get such edges there.
    """
    image = np.zeros((*alpha.shape, 4), np.float32)
    if background is not None:
        image[...] = (*background, 1)
    # Only covered pixels are decoded, because decoding is expensive and a head covers only a part of the image.
    covered = alpha + hole > 1e-6
    opacity = np.minimum(alpha[covered], 1)[:, None]
    kept = 1 - np.clip(hole[covered][:, None], 0, 1 - opacity)
    straight = np.clip(color[covered] / np.maximum(alpha[covered][:, None], 1e-6), 0, 1)
    primaries = _primaries()
    if background is None:
        light, result_alpha = decode(straight) * opacity, opacity
    else:
        behind = background if primaries is None else np.maximum(background @ np.linalg.inv(primaries), 0)
        blended = (straight * opacity + (kept - opacity) * encode(behind).astype(np.float32)) / np.maximum(kept, 1e-6)
        light, result_alpha = decode(blended) * kept, kept
    image[covered] = np.concatenate((light if primaries is None else light @ primaries, result_alpha), -1)
    return image


def depth_pass(depth: np.ndarray) -> np.ndarray:
    """The Depth pass from `depth` (H, W) in metres, where infinity means no object."""
    return np.where(np.isfinite(depth), depth, EMPTY_DEPTH).astype(np.float32)


def world_of(scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> bpy.types.World | None:
    """The world that a view layer renders."""
    return layer.world_override or scene.world


def background_node(world: bpy.types.World) -> bpy.types.Node | None:
    """The node that gives a world its colour; None if it has none, or if it has no nodes."""
    if not _has_nodes(world):
        return None
    backgrounds = (node for node in world.node_tree.nodes if node.bl_idname == "ShaderNodeBackground" and not node.mute)
    return next(backgrounds, None)


def _has_nodes(world: bpy.types.World) -> bool:
    # From Blender 5 on, a world that has nodes always uses them, and `use_nodes` is deprecated.
    return world.node_tree is not None and (bpy.app.version >= (5, 0, 0) or world.use_nodes)


def world_color(scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> np.ndarray:
    """The colour (3,) behind the avatars in a view layer, scene-linear; black if it has no world or does not show it.

    For a world with nodes this is the Background node's colour times its strength. An environment texture that is
    linked to the node is ignored (`unsupported` says so), and the node's own colour value is used.
    """
    world = world_of(scene, layer)
    if world is None or not layer.use_sky:
        return np.zeros(3)
    if not _has_nodes(world):
        return np.array(world.color)
    node = background_node(world)
    if node is None:
        return np.zeros(3)
    return np.array(node.inputs["Color"].default_value[:3]) * node.inputs["Strength"].default_value


def _primaries() -> np.ndarray | None:
    """(3, 3) matrix M for which `light @ M` converts Rec. 709 to the scene's primaries; None if they are the same, as
    in Blender's default.
    """
    rows = np.array([Color(axis).from_rec709_linear_to_scene_linear() for axis in np.eye(3)], np.float32)
    return None if np.allclose(rows, np.eye(3), atol=1e-4) else rows
