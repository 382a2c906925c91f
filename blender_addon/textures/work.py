"""A rig's avatar → its textures; a painted texture → a painted copy of the avatar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bpy
import numpy as np

from .. import file_names
from ..avatar_header import NOUN, REMEDY
from ..avatars import avatar_path
from ..errors import EffigyError
from ..player.baked_file import BakedAvatar
from ..player.players import player_of
from ..reading import reading
from ..renaming import write_new
from ..rig.rig_properties import Rig
from ..writing import sentences_about
from . import images
from .paint import painted_file, solved
from .surface import Surface, find_surface

SIZE: Final = 2048
"""Side of the textures: about 8 texels between two vertices of the open head's face."""
PAINTED_SUFFIX: Final = "_painted.effigy"
DISTANCE: Final = 0.7
"""Metres to the front from which the colours are seen."""
MOST_BYTES: Final = 64 << 20
COLOR, OPACITY, OFFSETS = "_color.png", "_opacity.png", "_offsets.exr"


@dataclass(frozen=True)
class _AtRest:
    """A rig's avatar without expression, seen from the front."""

    path: Path
    baked: BakedAvatar
    splats: dict[str, np.ndarray]
    surface: Surface


def export_textures(rig: Rig, depsgraph: bpy.types.Depsgraph, stem: Path) -> list[Path]:
    """Write the colour (sRGB), the opacity and the offsets (metres from the skin, head space) of an avatar's Gaussians
    over the rig's UV map, to files whose names begin with `stem`. Returns them. Raises an `EffigyError`.
    """
    rest = _at_rest(rig, depsgraph)
    surface, splats = rest.surface, rest.splats
    vertices = rest.baked.vertices.T
    anchors = np.concatenate((vertices, np.repeat(vertices, rest.baked.spawned, 0)))
    made = (
        (COLOR, surface.mean(splats["colors"]).clip(0, 1), True),
        (OPACITY, surface.mean(splats["opacities"][:, None]), False),
        (OFFSETS, surface.mean(splats["means"] - anchors), False),
    )
    files = [file_names.beside(stem, end) for end, _, _ in made]
    for file, (_, values, is_color) in zip(files, made, strict=True):
        images.save(file, surface.size, surface.texels, values, is_color=is_color)
    return files


def import_colors(rig: Rig, depsgraph: bpy.types.Depsgraph, texture: Path) -> tuple[Path, int]:
    """Write a copy of a rig's avatar with the colours of a painted texture, beside the texture. Returns it, and the
    number of Gaussians that changed. Raises an `EffigyError`, also where nothing was painted.
    """
    for end in (OPACITY, OFFSETS):
        if texture.name.lower().endswith(end):
            raise EffigyError(f"{texture.name} holds no colours: paint on the image that ends in {COLOR}.")
    rest = _at_rest(rig, depsgraph)
    surface, colors = rest.surface, rest.splats["colors"]
    color, alpha = (values[surface.texels] for values in images.load(texture, surface.size))
    change = solved(surface, alpha * (color - surface.mean(colors).clip(0, 1)), len(colors))
    count = int((np.abs(change).max(1) > 1 / 255).sum())
    if not count:
        raise EffigyError(
            f"{texture} is as it was exported from this avatar: paint on it and save the image, then import it."
        )
    with reading(rest.path, NOUN, REMEDY), open(rest.path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise EffigyError(f"The avatar {rest.path} is larger than {MOST_BYTES >> 20} MB, too much to be painted.")
    name = file_names.with_end(rest.path.stem.removesuffix(PAINTED_SUFFIX.removesuffix(".effigy")), PAINTED_SUFFIX)
    with sentences_about(texture.parent / name):
        return write_new(texture.parent / name, painted_file(content, rest.baked, colors, change)), count


def _at_rest(rig: Rig, depsgraph: bpy.types.Depsgraph) -> _AtRest:
    path, mesh = avatar_path(rig.armature), rig.mesh.data
    player = player_of(rig, path, depsgraph)
    if player is None:
        raise EffigyError(
            f"The avatar {path.name} has no baked model, whose colours a texture changes: press Make Playable without "
            "Backend, or train it again."
        )
    if not mesh.uv_layers.active:
        raise EffigyError(f"“{rig.mesh.name}” has no UV map any more: undo its removal, or add the avatar again.")
    if any(polygon.loop_total != 3 for polygon in mesh.polygons):
        raise EffigyError(f"“{rig.mesh.name}” has other faces than the head model: add the avatar again.")
    uv, faces = np.empty(2 * len(mesh.loops), np.float32), np.empty(len(mesh.loops), np.int32)
    mesh.uv_layers.active.uv.foreach_get("vector", uv)
    mesh.loops.foreach_get("vertex_index", faces)
    baked = player.baked
    rest = {name: np.zeros(3) for name in ("neck", "jaw", "eye_L", "eye_R")}
    pose = {"expression": np.zeros(len(baked.jaw)), "root": np.eye(4)} | rest
    splats = player.splats(pose, {"view": baked.joints[3:].mean(0) + (0, 0, DISTANCE)})
    vertices = np.ascontiguousarray(baked.vertices.T)
    surface = find_surface(SIZE, uv.reshape(-1, 3, 2), faces.reshape(-1, 3), vertices, splats)
    if not len(surface.texels):
        raise EffigyError(f"The UV map of “{rig.mesh.name}” is empty: undo its change, or add the avatar again.")
    return _AtRest(path, baked, splats, surface)
