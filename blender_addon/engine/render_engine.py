"""The class that Blender calls to render with the engine “Effigy”.

Everything about the frame is read from the dependency graph that Blender passes in, never from the file's original
objects: while an animation is rendered in its own thread, those may be at another frame.
"""

from __future__ import annotations

import atexit
import traceback
from collections.abc import Mapping, Sequence
from typing import Final

import bpy
import numpy as np
from bpy.app.handlers import persistent

from ..errors import EffigyError
from . import mattes, played_frame, worker_frame
from .camera import RenderRegion, WorkerCamera, image_size, render_region
from .color import combined_pass, depth_pass, world_color
from .engine_name import ENGINE
from .exposure import images_of_blur, images_of_movement, instants
from .frame_sum import FrameSum
from .output_room import check_room
from .rendered_frame import RenderedFrame
from .shutter import shutter_of
from .sight import SceneTime, Sight, sight_of
from .subjects import RenderSubjects
from .unsupported import unsupported_settings

_reported: Final[set[str]] = set()
"""The warnings of the current render or animation, which are reported once. Cleared when a render begins."""


class EffigyRenderEngine(bpy.types.RenderEngine):
    bl_idname = ENGINE
    bl_label = "Effigy"
    bl_use_preview = False
    bl_use_postprocess = True
    bl_use_eevee_viewport = True
    bl_use_shading_nodes_custom = False
    bl_use_gpu_context = played_frame.has_gpu()

    def update_render_passes(self, scene: bpy.types.Scene, renderlayer: bpy.types.ViewLayer) -> None:
        self.register_pass(scene, renderlayer, "Combined", 4, "RGBA", "COLOR")
        if renderlayer.use_pass_z:
            self.register_pass(scene, renderlayer, "Depth", 1, "Z", "VALUE")
        mattes.add_passes(renderlayer, lambda *described: self.register_pass(scene, renderlayer, *described))

    def render(self, depsgraph: bpy.types.Depsgraph) -> None:
        # An ERROR report also ends an animation. After an exception it would continue and write empty frames.
        try:
            self._render(depsgraph)
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
        except Exception as error:
            traceback.print_exc()
            self.report(
                {"ERROR"},
                f"A defect in Effigy stopped the render ({type(error).__name__}: {error}); the console has details.",
            )

    def _render(self, depsgraph: bpy.types.Depsgraph) -> None:
        scene = depsgraph.scene
        if scene.render.use_multiview:
            raise EffigyError("Effigy renders one view at a time: switch Stereoscopy off in Properties ▸ Output.")
        if self.is_animation:
            check_room(scene)
        if (self.camera_override or scene.camera) is None:
            raise EffigyError("There is no camera in this scene: add one and press Ctrl+Numpad 0, or import a video.")
        size = image_size(scene.render)
        region = render_region(scene.render, *size)
        time, parts = SceneTime(self, scene), mattes.Parts()
        try:
            total = self._exposed(depsgraph, time, size, region, parts)
        finally:
            time.go_to(0.0)
        if total is None:
            return
        layer = depsgraph.view_layer
        passes = {"Combined": total.image(), "Depth": depth_pass(total.depth())}
        if mattes.asked_for(layer):
            passes |= parts.passes(layer, total.parts())
        self._write_passes(layer.name, region, passes)
        for field, value in parts.metadata(layer).items():
            self.get_result().stamp_data_add_field(field, value)

    def _exposed(
        self,
        depsgraph: bpy.types.Depsgraph,
        time: SceneTime,
        size: tuple[int, int],
        region: RenderRegion,
        parts: mattes.Parts,
    ) -> FrameSum | None:
        """The image, averaged over the shutter's and the lens's openings; None if the artist has cancelled. Its parts
        are added to `parts` if the view layer asks for passes of them.
        """

        def see(offset: float) -> Sight:
            time.go_to(offset)
            return sight_of(self.camera_override or depsgraph.scene.camera, depsgraph, size, region)

        now = see(0.0)
        report_warnings(self, depsgraph.scene, now.visible.warnings)
        shutter = shutter_of(depsgraph.scene, depsgraph.view_layer)
        needed, most = images_of_blur(now), depsgraph.scene.effigy.blur_images
        if shutter is not None:
            ends = shutter.opens, (shutter.opens + shutter.closes) / 2, shutter.closes
            needed = max(needed, images_of_movement([see(end) for end in ends]))
        count, who = min(needed, most), f"{len(now.poses)} avatars" if len(now.poses) > 1 else "the avatar"
        total = FrameSum()
        for number, instant in enumerate(instants(count, shutter, now.lens)) if count > 1 else [(0, None)]:
            self.update_stats("", f"Rendering {who}" + (f", image {number + 1} of {count}" if count > 1 else ""))
            sight = see(instant.time if instant else 0.0)
            view = sight.view
            if instant and instant.point is not None and sight.lens is not None:
                view = sight.lens.through(view, instant.point)
            scene = depsgraph.scene
            frame = RenderedFrame.empty(region)
            if sight.poses:
                subjects = sight.visible.subjects if mattes.asked_for(depsgraph.view_layer) else ()
                labels = [parts.labels(subject.mesh) for subject in subjects]
                frame = self._drawn(sight.visible, view, scene, labels, len(parts))
            if frame is None or self.test_break():
                return None
            background = None if scene.render.film_transparent else world_color(scene, depsgraph.view_layer)
            total.add(frame, combined_pass(frame.color, frame.alpha, frame.hole, background))
            self.update_progress((number + 1) / count)
        return total

    def _drawn(
        self,
        visible: RenderSubjects,
        view: WorkerCamera,
        scene: bpy.types.Scene,
        labels: Sequence[np.ndarray],
        parts: int,
    ) -> RenderedFrame | None:
        """The avatars' image; None if the artist has cancelled."""
        if played_frame.is_playable(visible, scene.effigy.enhanced):
            try:
                return played_frame.draw(visible, view, labels, parts)
            except EffigyError:
                # After a shader that cannot be built, Blender draws none: then the worker does.
                if played_frame.is_playable(visible, scene.effigy.enhanced):
                    raise
        if reason := played_frame.why_not_here(visible):
            raise EffigyError(reason)
        return worker_frame.render(visible, view, scene.effigy.enhanced, self.test_break, labels, parts)

    def _write_passes(self, layer: str, region: RenderRegion, passes: Mapping[str, np.ndarray]) -> None:
        """Passes images (H, W, …) by their names, top row first, to Blender, which has the bottom row first."""
        result = self.begin_result(0, 0, region.width, region.height, layer=layer)
        for render_pass in result.layers[0].passes:
            pixels = passes.get(render_pass.name)
            if pixels is not None:
                render_pass.rect.foreach_set(np.ascontiguousarray(pixels[::-1], np.float32).ravel())
        self.end_result(result)
        self.update_progress(1.0)


def report_warnings(engine: bpy.types.RenderEngine, scene: bpy.types.Scene, warnings: Sequence[str]) -> None:
    """Reports what the render does not follow, each sentence once per render or animation."""
    for warning in (*warnings, *unsupported_settings(scene)):
        if warning not in _reported:
            _reported.add(warning)
            engine.report({"WARNING"}, warning)


@persistent
def _before_render(*_: object) -> None:
    _reported.clear()


handlers: Final = (("render_init", _before_render),)


def register() -> None:
    bpy.utils.register_class(EffigyRenderEngine)
    # Blender 4.5 hangs and 4.2 crashes if it quits while a Python render engine is registered.
    atexit.register(_unregister_class)


def unregister() -> None:
    atexit.unregister(_unregister_class)
    _unregister_class()


def _unregister_class() -> None:
    if EffigyRenderEngine.is_registered:
        bpy.utils.unregister_class(EffigyRenderEngine)
