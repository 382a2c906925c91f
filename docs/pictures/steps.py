"""Performs the steps of the guide in a Blender window, with a screenshot after each; take.py runs it inside Blender.

The steps are a generator that a timer advances, so that Blender redraws its window in between. The generator yields how
many seconds to wait.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))
import pages
import window as w

ORDER = json.loads(Path(sys.argv[sys.argv.index("--") + 1]).read_text("utf-8"))
PICTURES, PROJECT = Path(ORDER["pictures"]), Path(ORDER["project"])
PACKAGE = "bl_ext.user_default.effigy"
RIG_FRAME, SMILE_FRAME = 30, 10
VIEW: w.Box = (0, 28, 1057, 782)
"""The 3D View with its sidebar."""


def effigy(path: str) -> object:
    return importlib.import_module(f"{PACKAGE}.{path}")


def picture(name: str, box: w.Box = w.WHOLE) -> None:
    w.shot(PICTURES / f"{name}.png", box)


def until(done: object, seconds: float = w.LONG_WAIT) -> Iterator[float]:
    last = time.monotonic() + seconds
    while not done() and time.monotonic() < last:
        yield 0.3


def run(operator: object, *arguments: str, **options: object) -> None:
    with w.context():
        operator(*arguments, **options)


def newest_task() -> object:
    return effigy("blender_addon.tasks").all_tasks()[-1]


def finished() -> Iterator[float]:
    task = newest_task()
    yield from until(lambda: task.finished)
    if task.state != "done":
        raise RuntimeError(task.message)


def steps() -> Iterator[float]:
    bpy.ops.wm.read_homefile(use_empty=True)
    yield 0.7
    if ORDER["only"]:
        yield from finished_rig()
        yield from pages.pages(PICTURES, PROJECT, ORDER["only"])
        return
    yield from preferences()
    yield from importing()
    yield from sliders()
    yield from training()
    yield from pages.pages(PICTURES, PROJECT)
    yield from rendering()
    yield from compositing()


def finished_rig() -> Iterator[float]:
    """The rig with its avatar, both given, without any picture."""
    bpy.ops.wm.save_as_mainfile(filepath=str(PROJECT / "shot.blend"))
    yield from w.open_tab("Effigy")
    run(bpy.ops.effigy.import_capture, "EXEC_DEFAULT", directory=ORDER["capture"])
    yield from finished()
    yield from given_avatar()


def given_avatar() -> Iterator[float]:
    run(bpy.ops.effigy.add_avatar, "EXEC_DEFAULT", filepath=ORDER["avatar"])
    yield from until(lambda: bpy.context.object.effigy.avatar)
    bpy.ops.effigy.clear_jobs()
    yield 4.0


def preferences() -> Iterator[float]:
    run(bpy.ops.preferences.addon_show, module=PACKAGE)
    yield 1.0
    number, _ = w.floating_window()
    w.place(number, (0, 0, 760, 890))
    yield 0.7
    run(bpy.ops.effigy.examine_backend)
    setup = effigy("blender_addon.backend_setup")
    yield from until(lambda: not setup.is_examining(), 90)
    w.rest_mouse()
    yield 1.0
    picture("preferences", (0, 0, 760, 790))
    w.close_floating()
    yield 0.7


def importing() -> Iterator[float]:
    bpy.ops.wm.save_as_mainfile(filepath=str(PROJECT / "shot.blend"))
    yield from w.open_tab("Effigy")
    run(bpy.ops.effigy.import_video, "INVOKE_DEFAULT")
    yield 1.0
    number, _ = w.floating_window()
    w.place(number, (0, 0, 1000, 560))
    yield 0.5
    browser = bpy.context.window_manager.windows[-1].screen.areas[0].spaces.active
    browser.params.directory = str(PROJECT).encode()
    browser.params.filename = "demo.mp4"
    browser.params.display_type = "THUMBNAIL"
    w.rest_mouse()
    # Blender reads the thumbnails.
    yield 8.0
    picture("import_video", (0, 0, 1000, 560))
    w.close_floating()
    yield 0.7
    if ORDER["capture"]:
        run(bpy.ops.effigy.import_capture, "EXEC_DEFAULT", directory=ORDER["capture"])
    else:
        run(bpy.ops.effigy.import_video, "EXEC_DEFAULT", filepath=str(PROJECT / "demo.mp4"), last=ORDER["frames"])
        task = newest_task()
        yield from until(lambda: task.finished or task.fraction > 0.4)
        picture("importing", VIEW)
    yield from finished()
    bpy.context.scene.frame_set(RIG_FRAME)
    yield 4.0
    w.area().tag_redraw()
    yield 1.5
    picture("rig", VIEW)


def sliders() -> Iterator[float]:
    bpy.context.scene.frame_set(SMILE_FRAME)
    bpy.ops.effigy.clear_jobs()
    yield 0.5
    run(bpy.ops.effigy.apply_preset, preset="Smile", key=True)
    # The surface shows the smile better than the wire.
    view = bpy.context.object.effigy_view
    view.over_film = "SOLID"
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_sliders")
    picture("sliders", w.WHOLE)
    view.over_film = "WIRE"
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_import", "EFFIGY_PT_train")


def training() -> Iterator[float]:
    settings = bpy.context.object.effigy
    if ORDER["avatar"]:
        # The avatar for the guide exists; a short training is started only for the screenshot of a running training.
        settings.minutes, settings.size = 0.5, 128
    else:
        settings.minutes = ORDER["minutes"]
    run(bpy.ops.effigy.train_avatar, "EXEC_DEFAULT")
    task = newest_task()
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_import", "EFFIGY_PT_train", "EFFIGY_PT_jobs")
    yield from until(lambda: task.finished or (task.job.preview_count >= 2 and task.fraction > 0.6))
    yield 0.3
    picture("training", VIEW)
    if ORDER["avatar"]:
        task.cancel()
        yield from until(lambda: task.finished)
        yield from given_avatar()
    else:
        yield from finished()
        bpy.ops.effigy.clear_jobs()


def rendering() -> Iterator[float]:
    scene = bpy.context.scene
    scene.render.engine = "EFFIGY"
    scene.world = bpy.data.worlds.new("Grey")
    scene.world.color = (0.25, 0.25, 0.25)
    run(bpy.ops.effigy.use_standard_view)
    yield from render("render")
    w.close_floating()
    yield 0.7


def compositing() -> Iterator[float]:
    """The avatar composited with objects that Cycles renders."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    # Not every build of Blender contains the denoiser.
    scene.cycles.samples, scene.cycles.use_denoising = 32, False
    head = next(obj for obj in scene.objects if obj.type == "MESH").matrix_world.translation
    with w.context():
        bpy.ops.mesh.primitive_monkey_add(size=0.09, location=(head.x + 0.10, head.y - 0.16, head.z - 0.03))
        _paint("Before", (0.8, 0.25, 0.05))
        bpy.ops.mesh.primitive_torus_add(
            major_radius=0.17,
            minor_radius=0.02,
            rotation=(1.5708, 0, 0),
            location=(head.x, head.y + 0.1, head.z + 0.02),
        )
        _paint("Behind", (0.05, 0.3, 0.8))
        bpy.ops.object.light_add(
            type="AREA", rotation=(0.9, 0, 0.55), location=(head.x + 0.5, head.y - 0.8, head.z + 0.6)
        )
    bpy.context.object.data.energy = 12
    run(bpy.ops.effigy.set_up_composite)
    yield 1.0
    yield from render("composite")
    w.close_floating()
    yield 0.5


def render(name: str) -> Iterator[float]:
    # Not by the key: X11's F12 comes with Alt, for which Blender 5.2 has another meaning.
    run(bpy.ops.render.render, "INVOKE_DEFAULT")
    yield 2.0
    number, _ = w.floating_window()
    w.place(number, (0, 0, 760, 680))
    yield from until(lambda: not bpy.app.is_job_running("RENDER"), 300)
    yield 1.0
    w.press("Home", (300, 300))
    yield 0.5
    w.rest_mouse()
    yield 1.0
    picture(name, (0, 0, 760, 680))


def _paint(name: str, color: tuple[float, float, float]) -> None:
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (*color, 1.0)
    bpy.context.object.data.materials.append(material)


def start() -> None:
    if missing := w.missing_tools():
        raise RuntimeError(f"The screenshots need {' and '.join(missing)}: install them.")
    bpy.context.preferences.view.show_splash = False
    bpy.ops.extensions.package_install_files(filepath=ORDER["package"], repo="user_default", enable_on_install=True)
    pages.unfold()
    walk = steps()

    def advance() -> float | None:
        try:
            return next(walk)
        except StopIteration:
            end(0)
        except BaseException:
            traceback.print_exc()
            w.shot(PROJECT / "where_it_stopped.png")
            end(1)
        return None

    bpy.app.timers.register(advance, first_interval=1.0, persistent=True)


def end(code: int) -> None:
    (PROJECT / "ended").write_text(str(code))
    bpy.ops.wm.quit_blender()


start()
