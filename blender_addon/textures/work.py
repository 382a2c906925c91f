"""A rig's avatar → its textures; a painted texture → a painted copy of the avatar."""

from __future__ import annotations

import re
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
from .paint import Attribute, change_of, painted_file, values_at_rest
from .surface import Surface, find_surface

SIZE: Final = 2048
"""Side of the textures: about 8 texels between two vertices of the open head's face."""
PAINTED_SUFFIX: Final = "_painted.effigy"
_PAINTED: Final = re.compile(r"_painted(-\d+)?$")
"""The end of a painted copy's name without its suffix."""
DISTANCE: Final = 0.7
"""Metres to the front from which the colours are seen."""
MOST_BYTES: Final = 64 << 20
MOST_OFFSET: Final = 0.2
"""Metres. Hair of the trained avatars stands off the skin by up to a tenth."""
ENDS: Final = {Attribute.COLOR: "_color.png", Attribute.OPACITY: "_opacity.png", Attribute.OFFSETS: "_offsets.exr"}
"""Of the textures' names."""


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
    files = []
    for attribute, end in ENDS.items():
        values = rest.surface.mean(values_at_rest(attribute, rest.baked, rest.splats))
        is_color = attribute is Attribute.COLOR
        file = file_names.beside(stem, end)
        shown = values.clip(0, 1) if is_color else values
        images.save(file, rest.surface.size, rest.surface.texels, shown, is_color=is_color)
        files.append(file)
    return files


def import_texture(rig: Rig, depsgraph: bpy.types.Depsgraph, texture: Path) -> tuple[Path, int, Attribute]:
    """Write a copy of a rig's avatar with the colours, opacity or offsets of a painted texture, beside the texture.
    Earlier copies stay, because undo goes back to them. Returns the file, the number of Gaussians that changed, and
    what of them. Raises an `EffigyError`, also where nothing was painted.
    """
    attribute = attribute_of(texture)
    rest = _at_rest(rig, depsgraph)
    surface, values = rest.surface, values_at_rest(attribute, rest.baked, rest.splats)
    painted, alpha = (
        found[surface.texels] for found in images.load(texture, surface.size, is_color=attribute is Attribute.COLOR)
    )
    if attribute is Attribute.OFFSETS and np.abs(painted).max() > MOST_OFFSET:
        raise EffigyError(
            f"{texture} moves Gaussians by {np.abs(painted).max():.1f} m: offsets are metres, at most {MOST_OFFSET}. "
            "Paint on the exported image."
        )
    if attribute is Attribute.OPACITY:
        painted = painted.mean(1, keepdims=True)
    shown = surface.mean(values)
    change = change_of(attribute, surface, values, shown + alpha * (painted - shown))
    count = int((np.abs(change).max(1) > attribute.unpainted).sum())
    if not count:
        raise EffigyError(
            f"{texture} is as it was exported from this avatar: paint on it and save the image, then import it."
        )
    with reading(rest.path, NOUN, REMEDY), open(rest.path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise EffigyError(f"The avatar {rest.path} is larger than {MOST_BYTES >> 20} MB, too much to be painted.")
    made = painted_file(content, rest.baked, rest.splats, attribute, change)
    return _saved(rest.path, texture.parent, made), count, attribute


def attribute_of(texture: Path) -> Attribute:
    """What a texture holds, by its name. Raises an `EffigyError` if that does not say it."""
    name = texture.stem.lower()
    found = {name.rfind(f"_{attribute}"): attribute for attribute in Attribute}
    attribute = found[max(found)]
    if max(found) < 0:
        raise EffigyError(
            f"“{texture.name}” does not say what was painted: keep _color, _opacity or _offsets in the name of the "
            "exported image."
        )
    if attribute is Attribute.OFFSETS and texture.suffix.lower() != ".exr":
        raise EffigyError(f"“{texture.name}” cannot hold offsets, which are metres: save the image as .exr.")
    return attribute


def _saved(avatar: Path, folder: Path, content: bytes) -> Path:
    stem = _PAINTED.sub("", avatar.stem)
    path = folder / file_names.with_end(stem, PAINTED_SUFFIX)
    with sentences_about(path):
        return write_new(path, content)


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
