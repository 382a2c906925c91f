"""What Blender calls to render: the engine “Effigy”.

Everything about the frame comes from the dependency graph that Blender hands over, never from the file's own objects:
while an animation renders in its thread, those may stand at another frame.
"""

from __future__ import annotations

import atexit
import traceback

import bpy
import numpy as np
from bpy.app.handlers import persistent

from ..errors import EffigyError
from ..worker import session
from .camera import Window, camera_parameters, picture_size, window_of
from .color import combined, depth_pass, world_color
from .limits import not_rendered
from .subjects import cast_of
from .waiting import ask

ENGINE = "EFFIGY"

_said: set[str] = set()
"""Warnings of this render job: an animation says each once."""


class EffigyRenderEngine(bpy.types.RenderEngine):
    bl_idname = ENGINE
    bl_label = "Effigy"
    bl_use_preview = False
    bl_use_postprocess = True
    bl_use_eevee_viewport = True
    bl_use_shading_nodes_custom = False

    def update_render_passes(self, scene: bpy.types.Scene, renderlayer: bpy.types.ViewLayer) -> None:
        self.register_pass(scene, renderlayer, "Combined", 4, "RGBA", "COLOR")
        if renderlayer.use_pass_z:
            self.register_pass(scene, renderlayer, "Depth", 1, "Z", "VALUE")

    def render(self, depsgraph: bpy.types.Depsgraph) -> None:
        # An ERROR report also ends an animation; an exception would let it go on and write empty frames.
        try:
            self._render(depsgraph)
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
        except Exception as error:
            traceback.print_exc()
            self.report(
                {"ERROR"},
                f"Effigy met a defect while rendering ({type(error).__name__}: {error}): the console says more.",
            )

    def _render(self, depsgraph: bpy.types.Depsgraph) -> None:
        scene = depsgraph.scene
        if scene.render.use_multiview:
            raise EffigyError("Effigy renders one view at a time: switch Stereoscopy off in Properties ▸ Output.")
        camera = self.camera_override or scene.camera
        if camera is None:
            raise EffigyError("There is no camera in this scene: add one and press Ctrl+Numpad 0, or import a video.")
        size = picture_size(scene.render)
        window = window_of(scene.render, *size)
        lens = camera_parameters(camera.evaluated_get(depsgraph), depsgraph, size, window)
        cast = cast_of(depsgraph)
        warn(self, scene, cast.warnings)
        count = len(cast.subjects)
        self.update_stats("", f"Drawing {count} avatars" if count > 1 else "Drawing the avatar")
        frame = ask(
            session.client(),
            "avatar.render",
            {"subjects": cast.subjects, "camera": lens, "enhanced": scene.effigy.enhanced},
            self.test_break,
        )
        if frame is None:
            return
        background = None if scene.render.film_transparent else world_color(scene)
        picture = combined(frame["color"], frame["alpha"], background)
        self._hand_over(depsgraph.view_layer.name, window, picture, depth_pass(frame["depth"]))

    def _hand_over(self, layer: str, window: Window, picture: np.ndarray, depth: np.ndarray) -> None:
        """Give Blender the passes: (H, W, C) with the top row first; Blender has the lowest first."""
        result = self.begin_result(0, 0, window.width, window.height, layer=layer)
        for render_pass in result.layers[0].passes:
            filled = {"Combined": picture, "Depth": depth}.get(render_pass.name)
            if filled is not None:
                render_pass.rect.foreach_set(np.ascontiguousarray(filled[::-1], np.float32).ravel())
        self.end_result(result)
        self.update_progress(1.0)


def warn(engine: bpy.types.RenderEngine, scene: bpy.types.Scene, warnings: list[str]) -> None:
    """Say what is not as the scene wants it: each sentence once a render or animation."""
    for warning in (*warnings, *not_rendered(scene)):
        if warning not in _said:
            _said.add(warning)
            engine.report({"WARNING"}, warning)


@persistent
def _begin(*_: object) -> None:
    _said.clear()


def register() -> None:
    bpy.utils.register_class(EffigyRenderEngine)
    bpy.app.handlers.render_init.append(_begin)
    # Blender 4.5 hangs and 4.2 crashes when it ends with an engine of Python's still registered.
    atexit.register(_unregister_class)


def unregister() -> None:
    if _begin in bpy.app.handlers.render_init:
        bpy.app.handlers.render_init.remove(_begin)
    atexit.unregister(_unregister_class)
    _unregister_class()


def _unregister_class() -> None:
    if EffigyRenderEngine.is_registered:
        bpy.utils.unregister_class(EffigyRenderEngine)
