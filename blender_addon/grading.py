"""The grade on a rig's armature: read for a frame, and set."""

from __future__ import annotations

from dataclasses import fields

import bpy

from .grade import Grade
from .rig.rig_properties import Rig

NAMES = tuple(field.name for field in fields(Grade))
"""Of the grade and of the properties in `Object.effigy`."""


def grade_of(rig: Rig, depsgraph: bpy.types.Depsgraph) -> Grade:
    """A rig's grade in a depsgraph's frame."""
    settings = rig.armature.evaluated_get(depsgraph).effigy
    return Grade(*(getattr(settings, name) for name in NAMES))


def set_grade(armature: bpy.types.Object, grade: Grade, key: bool) -> None:
    """`key`: also keys the grade at the scene's frame."""
    for name in NAMES:
        setattr(armature.effigy, name, getattr(grade, name))
        if key:
            armature.keyframe_insert(f"effigy.{name}", group="Grade")


def sentence_of(grade: Grade) -> str:
    """The numbers of a grade, for a report."""
    return (
        f"exposure {grade.exposure:+.2f} stops, red × {grade.red:.2f}, blue × {grade.blue:.2f}, "
        f"black level {grade.black:+.3f}"
    )
