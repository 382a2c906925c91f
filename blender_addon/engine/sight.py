"""What the camera sees at one time of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import bpy

from ..rig.pose import RigPose
from .camera import RenderRegion, WorkerCamera, worker_camera
from .lens import Lens, lens_of
from .subjects import RenderSubjects, collect_subjects


@dataclass(frozen=True)
class Sight:
    """The avatars in the image, and the camera through which they are seen."""

    view: WorkerCamera
    visible: RenderSubjects
    lens: Lens | None = None
    """None without depth of field."""

    @property
    def poses(self) -> tuple[RigPose, ...]:
        return tuple(subject.pose for subject in self.visible.subjects)


def sight_of(
    camera: bpy.types.Object, depsgraph: bpy.types.Depsgraph, size: tuple[int, int], region: RenderRegion
) -> Sight:
    """What the dependency graph shows now. Raises an `EffigyError` as `worker_camera` and `collect_subjects` do."""
    camera = camera.evaluated_get(depsgraph)
    return Sight(worker_camera(camera, depsgraph, size, region), collect_subjects(depsgraph), lens_of(camera))


class SceneTime:
    """Moves the scene that an engine renders to other times of the exposure, and back."""

    def __init__(self, engine: bpy.types.RenderEngine, scene: bpy.types.Scene) -> None:
        self._engine, self._frame, self._subframe = engine, scene.frame_current, scene.frame_subframe
        self._offset = 0.0

    def go_to(self, offset: float) -> None:
        """`offset`: frames from the time of the image. The dependency graph is evaluated there; what was read of it
        before is no longer valid.
        """
        if offset == self._offset:
            return
        whole, part = divmod(self._subframe + offset, 1)
        self._engine.frame_set(self._frame + int(whole), part)
        self._offset = offset
