"""Several videos of one person: tracks their captures together, so that all of them have the same head, on which one
avatar can be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bpy

from . import preferences, tasks, training
from .errors import EffigyError
from .importing import TrackRequest, build_rig_of
from .paths import check_written
from .rig.rig_properties import Rig
from .rig.steps import Steps, part
from .tasks import Task


def track_together(scene: bpy.types.Scene, rig: Rig, others: Sequence[Rig], cameras: Path | None = None) -> Task:
    """Starts tracking the captures of `rig` and of `others` again, with one head for all, and builds a rig for each.
    `cameras` is a `transforms.json` of nerfstudio, for videos that calibrated cameras filmed at once.
    """
    capture, more = training.capture_of(rig), training.further_captures(rig, others)
    if not more:
        raise EffigyError("Select the rigs of two or more videos of the same person, the best video's last.")
    for owner, path in {rig.armature: capture, **more}.items():
        check_written(path, owner)
    request = TrackRequest(capture, preferences.head_file(), tuple(more.values()), cameras)
    captures = (capture, *more.values())
    return tasks.start(
        f"Track {len(captures)} videos together",
        "track",
        request.params(),
        lambda _: _build(scene, captures),
        f"The captures have one head now: add {capture} and the others to any .blend file with Import ▸ Add Capture.",
    )


def _build(scene: bpy.types.Scene, captures: Sequence[Path]) -> Steps[str]:
    """Builds a rig for each capture, that of the first last, and selects all of them."""
    built: list[Rig] = []
    for number, capture in enumerate(reversed(captures)):
        begin, end = number / len(captures), (number + 1) / len(captures)
        rig, _ = yield from part(build_rig_of(scene, capture.stem, capture, False), begin, end)
        built.append(rig)
    for layer in scene.view_layers:
        for rig in built:
            if rig.armature.name in layer.objects:
                layer.objects[rig.armature.name].select_set(True, view_layer=layer)
    return (
        f"{len(built)} rigs with one head stand beside the others. They are selected: Train Avatar now trains on the "
        f"videos of all of them, with the colours of “{built[-1].armature.name}”."
    )
