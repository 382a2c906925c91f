"""Suns that light added objects as a head was lit in its footage.

A job of the worker finds the light in the capture: lamps, and six wide lights for all that comes from around. Each
becomes a sun, because the distance of a lamp is not known. The suns are children of an empty that is a child of the
rig's armature object: that is the room of the performance, in which the head's bones move. They are in a collection of
their own, which *Remove* takes away; nothing else in the scene changes.

Skin of unknown albedo does not tell how strong and how white the light is. The average light is taken to be white, and
the skin to send back a share of it, which the artist may set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np
from mathutils import Vector

from . import tasks
from .errors import EffigyError
from .file_names import datablock_name
from .rig.conventions import default_camera_pose
from .rig.rig_properties import Rig, find_rig
from .rig.steps import Steps
from .tasks import Task
from .training import capture_of

PROPERTY: Final = "effigy_head_light"
"""Custom property on the empty and its suns, by which they are found."""
REFLECTANCE: Final = 0.35
"""Of the skin, luminance: between pale skin (0.5) and dark skin (0.1)."""
LAMP_NAMES: Final = ("key", "fill", "third")
AMBIENT_NAMES: Final = {
    (1, 0, 0): "from the right",
    (0, 1, 0): "from below",
    (0, 0, 1): "from behind",
    (-1, 0, 0): "from the left",
    (0, -1, 0): "from above",
    (0, 0, -1): "from the front",
}
"""By the direction in the camera's OpenCV axes: as the camera sees the head."""
LAMP_ANGLE: Final = np.radians(15.0)
"""Of a lamp's sun: diffuse skin does not tell how large a lamp is, so shadows have an edge as by a soft box."""
DISTANCE: Final = 1.0
"""Metres from the head at which the suns are drawn; their light does not depend on it."""
MOST_LAMPS: Final = 16
WEAKEST: Final = 1e-3
"""A sun that is weaker than this share of the strongest one is not made."""
_LUMINANCE: Final = np.array((0.2126, 0.7152, 0.0722))


@dataclass(frozen=True)
class Light:
    """The worker's answer: directions (..., 3) in the camera's OpenCV axes, colours of average skin (..., 3)."""

    lamps: np.ndarray
    lamp_colors: np.ndarray
    ambient_axes: np.ndarray
    ambient: np.ndarray
    half_angle: float
    average: np.ndarray
    said: str

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Light:
        """Raises an `EffigyError` for an answer that no backend gives."""
        try:
            rows = {name: _rows(answer[name]) for name in ("lamps", "lamp_colors", "ambient_axes", "ambient")}
            half_angle, average = float(answer["half_angle"]), _rows([answer["average"]])[0]
            said = str(answer["said"][0])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EffigyError(f"The backend sent a light that cannot be read ({error}): install it again.") from error
        fits = len(rows["lamps"]) == len(rows["lamp_colors"]) and len(rows["ambient_axes"]) == len(rows["ambient"])
        if not fits or not 0 < half_angle < np.pi or min(average) <= 0:
            raise EffigyError("The backend sent a light that cannot be right: install it again.")
        return cls(**rows, half_angle=half_angle, average=average, said=said)


def _rows(values: Any) -> np.ndarray:
    rows = np.asarray(values, np.float64).reshape(-1, 3)
    if len(rows) > MOST_LAMPS or not np.isfinite(rows).all():
        raise ValueError("its numbers")
    return rows


def add_head_light(rig: Rig, reflectance: float) -> Task:
    """Starts finding the light in the rig's capture, of which suns are then made in place of earlier ones."""
    capture, name = capture_of(rig), rig.armature.name
    return tasks.start(
        f"Head Light of “{name}”",
        "light",
        {"capture": str(capture)},
        lambda result: _build(name, Light.from_answer(result), reflectance),
        "The rig's file was closed meanwhile: find the light again.",
    )


def _build(name: str, light: Light, reflectance: float) -> Steps[str]:
    armature = bpy.data.objects.get(name)
    rig = find_rig(armature) if armature else None
    if rig is None:
        raise EffigyError(f"“{name}” is gone from this file or has another name: find the light again.")
    remove_head_light(rig)
    yield 0.5
    build_suns(rig, light, reflectance)
    return (
        f"“{name}”: {light.said.rpartition(': ')[2]} How strong it is depends on the skin, which is taken to send back "
        f"{100 * reflectance:.0f} % of it; the average light is taken to be white."
    )


def build_suns(rig: Rig, light: Light, reflectance: float) -> bpy.types.Object:
    """Makes the empty and the suns of a rig's light, and returns the empty."""
    armature = rig.armature
    collection = bpy.data.collections.new(datablock_name(armature.name, " light"))
    own = (each for each in rig.mesh.users_collection if each.library is None and each.override_library is None)
    next(own, bpy.context.scene.collection).children.link(collection)
    empty = bpy.data.objects.new(collection.name, None)
    empty.empty_display_type, empty.empty_display_size = "PLAIN_AXES", 0.05
    empty[PROPERTY], empty.parent = True, armature
    collection.objects.link(empty)
    # White matter shows its irradiance by pi. The average skin is `reflectance` times white under the average light.
    white = np.pi / reflectance / light.average * (light.average @ _LUMINANCE)
    suns = [
        (LAMP_NAMES[min(number, len(LAMP_NAMES) - 1)], direction, color * white, LAMP_ANGLE)
        for number, (direction, color) in enumerate(zip(light.lamps, light.lamp_colors, strict=True))
    ]
    suns += [
        (
            AMBIENT_NAMES.get(tuple(np.rint(axis).astype(int).tolist()), "around"),
            axis,
            color * white,
            2 * light.half_angle,
        )
        for axis, color in zip(light.ambient_axes, light.ambient, strict=True)
    ]
    most = max((max(color) for _, _, color, _ in suns), default=0.0)
    to_room = default_camera_pose(np.eye(4)[None])[:3, :3]
    for title, direction, color, angle in suns:
        if max(color) > WEAKEST * most:
            _sun(f"{armature.name} {title}", to_room @ direction, color, angle, empty, collection)
    return empty


def _sun(
    name: str,
    direction: np.ndarray,
    color: np.ndarray,
    angle: float,
    parent: bpy.types.Object,
    collection: bpy.types.Collection,
) -> None:
    """A sun that shines from `direction` (3,), in the parent's axes, and gives a facing surface `color` (3,) W/m²."""
    sun = bpy.data.lights.new(datablock_name(name, ""), "SUN")
    sun.energy, sun.angle = float(max(color)), float(angle)
    sun.color = (color / max(color)).tolist()
    obj = bpy.data.objects.new(sun.name, sun)
    obj[PROPERTY], obj.parent = True, parent
    towards = Vector(direction.tolist()).normalized()
    obj.location, obj.rotation_mode = towards * DISTANCE, "QUATERNION"
    # A sun shines along its own -z.
    obj.rotation_quaternion = towards.to_track_quat("Z", "Y")
    collection.objects.link(obj)


def head_light_of(rig: Rig) -> list[bpy.types.Object]:
    """The empties and suns of a rig's light; empty if it has none."""
    empties = [child for child in rig.armature.children if child.get(PROPERTY)]
    return [*empties, *(sun for empty in empties for sun in empty.children if sun.get(PROPERTY))]


def remove_head_light(rig: Rig) -> None:
    """Removes a rig's light. What the artist has put into its collection stays."""
    objects = head_light_of(rig)
    lamps = [obj.data for obj in objects if obj.type == "LIGHT"]
    collections = {collection for obj in objects if obj.type == "EMPTY" for collection in obj.users_collection}
    for obj in objects:
        bpy.data.objects.remove(obj)
    for lamp in lamps:
        if not lamp.users:
            bpy.data.lights.remove(lamp)
    for collection in collections:
        if not collection.all_objects and collection.library is None:
            bpy.data.collections.remove(collection)
