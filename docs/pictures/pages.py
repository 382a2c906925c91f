"""The pictures of the guide's later pages: performance, face controls, plates, playback and textures.

`steps.py` calls `pages` when the scene holds the tracked rig with its avatar. Each page leaves the scene as it was.
"""

from __future__ import annotations

import importlib
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import bpy
import window as w

PACKAGE: Final = "bl_ext.user_default.effigy"
FACE: Final[w.Box] = (190, 81, 860, 715)
"""The head in the 3D View, and the sidebar."""
CLEAN_UP, LIFE = 78, 99
"""Pixels from the header of the panel Performance down to the headers in it, while these are closed."""
SPEAKING, CALM = 46, 1
"""Frames of the scene."""
OSC_PORT: Final = 39539
SENT: Final = {
    "jawOpen": 0.12,
    "mouthSmileLeft": 0.7,
    "mouthSmileRight": 0.6,
    "browInnerUp": 0.8,
    "browOuterUpLeft": 0.7,
}
"""What the performer of the page Live does."""
HANDLES: Final = {
    "face_lip_corner.L": (0.3, 0.9),
    "face_lip_corner.R": (0.3, 0.8),
    "face_brow_inner": (0.0, 0.5),
    "face_gaze": (0.35, 0.0),
}
"""Handle of the face -> how far it is pulled across and up, as a share of its reach."""


def unfold() -> None:
    """What lies folded in other panels is shown open; to be called before the tab is drawn first."""
    panels = importlib.import_module(f"{PACKAGE}.blender_addon.panels.view_panel")
    sliders = importlib.import_module(f"{PACKAGE}.blender_addon.panels.sliders_panel")
    w.unfold(panels.EFFIGY_PT_grade, sliders.EFFIGY_PT_controls)


def pages(folder: Path, project: Path, only: Iterable[str] = ()) -> Iterator[float]:
    """Writes the pictures of all pages, or `only` of some, into `folder`; `project` holds the sound and the plate."""
    overlay = w.area().spaces.active.overlay
    overlay.show_bones = False
    w.area().spaces.active.show_region_hud = False
    for page in (lip_sync, clean_up, eyes_and_life, live, match_plate, textures, playback, face_controls):
        if only and page.__name__ not in only:
            continue
        print(f"{time.strftime('%X')} {page.__name__}", flush=True)
        bpy.context.scene.frame_set(CALM)
        yield from page(folder, project)
        clear_jobs()
    overlay.show_bones = True
    w.area().spaces.active.show_region_hud = True


def run(operator: Any, *arguments: Any, **options: object) -> None:
    with w.context():
        operator(*arguments, **options)


def picture(folder: Path, name: str, box: w.Box = FACE) -> None:
    w.shot(folder / f"{name}.webp", box)


def finished() -> Iterator[float]:
    task = importlib.import_module(f"{PACKAGE}.blender_addon.tasks").all_tasks()[-1]
    while not task.finished:
        yield 0.3
    if task.state != "done":
        raise RuntimeError(task.message)


def clear_jobs() -> None:
    if bpy.ops.effigy.clear_jobs.poll():
        bpy.ops.effigy.clear_jobs()


def undone() -> Iterator[float]:
    """One step back, as a page's last change."""
    run(bpy.ops.ed.undo)
    yield 0.7


def lip_sync(folder: Path, project: Path) -> Iterator[float]:
    sound, text = project / "line.flac", (project / "line.txt").read_text("utf-8").strip()
    run(bpy.ops.effigy.lip_sync, "INVOKE_DEFAULT")
    yield 1.0
    number, _ = w.floating_window()
    w.place(number, (0, 0, 1000, 420))
    yield 0.7
    browser = bpy.context.window_manager.windows[-1].screen.areas[0].spaces.active
    browser.params.directory = str(project).encode()
    browser.params.filename = sound.name
    browser.params.display_type = "LIST_VERTICAL"
    browser.active_operator.text = text
    w.rest_mouse()
    yield 2.0
    picture(folder, "lip_sync", (0, 0, 1000, 420))
    w.close_floating()
    yield 0.7
    run(bpy.ops.effigy.lip_sync, "EXEC_DEFAULT", filepath=str(sound), text=text, frame_start=1, add_sound=False)
    yield from finished()


def clean_up(folder: Path, project: Path) -> Iterator[float]:
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_performance")
    yield from open_part(CLEAN_UP)
    w.area().spaces.active.show_region_hud = True
    run(bpy.ops.effigy.simplify_performance, "EXEC_DEFAULT", True)
    yield 1.5
    bpy.context.scene.frame_set(SPEAKING)
    w.click(150, 797)
    yield 1.0
    w.rest_mouse()
    yield 0.7
    picture(folder, "clean_up", (0, 81, 1050, 732))
    w.area().spaces.active.show_region_hud = False
    yield from undone()
    yield from open_part(CLEAN_UP)


def open_part(down: int) -> Iterator[float]:
    """Open or close a part of the only open panel, Performance."""
    with w.context():
        order = [panel.__name__ for panel in w.panels_of(PACKAGE)]
    top = w.FIRST_HEADER + order.index("EFFIGY_PT_performance") * w.NEXT_HEADER
    w.click(w.HEADER_X, top + down)
    yield 1.0
    w.rest_mouse()
    yield 0.7


def eyes_and_life(folder: Path, project: Path) -> Iterator[float]:
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_performance")
    rig = bpy.context.object
    run(bpy.ops.effigy.add_gaze_target, "EXEC_DEFAULT", distance=0.5)
    run(bpy.ops.effigy.add_blinks, "EXEC_DEFAULT")
    run(bpy.ops.effigy.add_breathing, "EXEC_DEFAULT")
    target = next(obj for obj in bpy.context.scene.objects if obj.name.endswith(" gaze"))
    target.location.x += 0.16
    target.location.z += 0.07
    yield from open_part(LIFE)
    yield 1.5
    picture(folder, "eyes_and_life")
    yield from open_part(LIFE)
    for what in ("TARGET", "BLINKS", "BREATHING"):
        run(bpy.ops.effigy.remove_life, "EXEC_DEFAULT", what=what)
    bpy.context.view_layer.objects.active = rig
    yield 0.5


def live(folder: Path, project: Path) -> Iterator[float]:
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_live")
    bpy.context.window_manager.effigy_live.source = "VMC"
    run(bpy.ops.effigy.live_start, "INVOKE_DEFAULT")
    stop, moving = threading.Event(), threading.Event()
    sender = threading.Thread(target=send, args=(stop, moving), daemon=True)
    sender.start()
    session = importlib.import_module(f"{PACKAGE}.blender_addon.live.session")
    while session.current() is None or session.current().calibration.neutral is None:
        yield 0.3
    moving.set()
    yield 1.0
    run(bpy.ops.effigy.live_record, "EXEC_DEFAULT")
    yield 3.0
    picture(folder, "live")
    run(bpy.ops.effigy.live_stop, "EXEC_DEFAULT")
    stop.set()
    yield 1.5
    yield from undone()


def send(stop: threading.Event, moving: threading.Event) -> None:
    """A performer's channels by plain OSC, all of a moment in one bundle: at rest first, then as in `SENT`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        while not stop.wait(1 / 30):
            bundle = b"#bundle\0" + struct.pack(">Q", 1)
            for name, value in SENT.items():
                address = f"/face/{name}".encode() + b"\0"
                address += b"\0" * (-len(address) % 4)
                message = address + b",f\0\0" + struct.pack(">f", value if moving.is_set() else 0.02)
                bundle += struct.pack(">i", len(message)) + message
            way.sendto(bundle, ("127.0.0.1", OSC_PORT))


def match_plate(folder: Path, project: Path) -> Iterator[float]:
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_view")
    background = bpy.context.scene.camera.data.background_images[0]
    film, background.image = background.image, bpy.data.images.load(str(project / "plate.png"))
    run(bpy.ops.effigy.match_plate, "EXEC_DEFAULT", True)
    yield 1.5
    picture(folder, "match_plate")
    run(bpy.ops.effigy.reset_grade, "EXEC_DEFAULT")
    background.image = film
    yield 0.5


def textures(folder: Path, project: Path) -> Iterator[float]:
    """The avatar's colours over its UV map in an Image Editor beside the head."""
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_playback")
    color = project / "demo_color.png"
    run(bpy.ops.effigy.export_textures, "EXEC_DEFAULT", filepath=str(color))
    while not color.is_file():
        yield 0.3
    yield 1.0
    view = w.area().spaces.active.region_3d
    zoom, offset = view.view_camera_zoom, tuple(view.view_camera_offset)
    with w.context():
        bpy.ops.screen.area_split(direction="VERTICAL", factor=0.4)
    yield 0.5
    views = sorted((area for area in w.main_window().screen.areas if area.type == "VIEW_3D"), key=lambda area: area.x)
    left = views[0]
    left.type = "IMAGE_EDITOR"
    left.spaces.active.image = bpy.data.images.load(str(color))
    yield 1.0
    with bpy.context.temp_override(window=w.main_window(), area=left, region=w.region("WINDOW", left)):
        bpy.ops.image.view_all(fit_view=True)
    with w.context():
        bpy.ops.view3d.view_center_camera()
    # Away from the sidebar.
    w.area().spaces.active.region_3d.view_camera_offset[0] += 0.1
    yield 1.5
    picture(folder, "textures", (0, 27, 1050, 690))
    with bpy.context.temp_override(window=w.main_window(), area=left):
        bpy.ops.screen.area_close()
    yield 0.7
    view = w.area().spaces.active.region_3d
    view.view_camera_zoom, view.view_camera_offset = zoom, offset
    yield 0.5


def playback(folder: Path, project: Path) -> Iterator[float]:
    scene = bpy.context.scene
    end, scene.frame_end = scene.frame_end, SPEAKING
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_playback")
    run(bpy.ops.effigy.bake_playback, "EXEC_DEFAULT")
    yield from finished()
    clear_jobs()
    yield 2.0
    picture(folder, "playback")
    run(bpy.ops.effigy.clear_playback, "EXEC_DEFAULT")
    scene.frame_end = end


def face_controls(folder: Path, project: Path) -> Iterator[float]:
    """The handles on the face, and the board beside it."""
    run(bpy.ops.effigy.add_face_controls, "EXEC_DEFAULT")
    run(bpy.ops.effigy.reset_expression, "EXEC_DEFAULT")
    armature, view = bpy.context.object, w.area().spaces.active
    board = importlib.import_module(f"{PACKAGE}.blender_addon.face_board.build")
    travel = armature[board.BOARD_PROPERTY]
    for name, (across, up) in HANDLES.items():
        bone = armature.pose.bones[name]
        bone.location.x, bone.location.y = across * travel, up * travel
    run(bpy.ops.object.mode_set, mode="POSE")
    view.overlay.show_bones = True
    # The board lies to the right of the face.
    offset = tuple(view.region_3d.view_camera_offset)
    view.region_3d.view_camera_offset[0] += 0.1
    yield from w.show_panels(PACKAGE, "EFFIGY_PT_sliders")
    with w.context():
        bpy.ops.pose.select_all(action="DESELECT")
    yield 1.0
    picture(folder, "face_controls", (2, 81, 1048, 636))
    view.region_3d.view_camera_offset = offset
    view.overlay.show_bones = False
    run(bpy.ops.object.mode_set, mode="OBJECT")
    run(bpy.ops.effigy.remove_face_controls, "EXEC_DEFAULT")
    yield 0.5
