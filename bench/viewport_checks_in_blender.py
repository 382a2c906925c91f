"""Runs inside Blender's window for `bench.viewport_checks`: each check a row, each picture a file."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import gpu
import numpy as np
from mathutils import Quaternion, Vector

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "docs" / "pictures")]
from viewport_screen import (
    PACKAGE,
    difference,
    effigy,
    end_with,
    in_view,
    plain,
    rasterised,
    redraw,
    screen,
    settle,
    view,
)

ORDER = json.loads(Path(sys.argv[sys.argv.index("--") + 1]).read_text("utf-8"))
MOST = 2.0
"""Levels of 255 by which the window may differ from the rasteriser, in the mean inside the head."""
SAME = 1.0
"""Levels by which two pictures of the same thing may."""
FRONT = Quaternion((0.5**0.5, 0.5**0.5, 0, 0))

rows: list[dict[str, Any]] = []


def row(what: str, level: float | None, good: bool, said: str = "") -> None:
    rows.append({"what": what, "level": level, "good": bool(good), "said": said})
    print(f"checked: {what}: {level} {'good' if good else 'WRONG'} {said}", flush=True)
    Path(ORDER["result"] + ".part").write_text(json.dumps(rows), "utf-8")


def attempt(what: str, check: Callable[[], tuple[float | None, bool]]) -> None:
    """A check that fails to run is a row that is wrong, and the next is made."""
    try:
        level, good = check()
        row(what, level, good)
    except Exception as error:
        traceback.print_exc()
        row(what, None, False, f"{type(error).__name__}: {error}")


def matches(*rigs: Any) -> tuple[float, bool]:
    level = difference(rigs, [AVATARS[rig.armature.name] for rig in rigs])
    return level, level < MOST


AVATARS: dict[str, str] = {}


def space() -> Any:
    return view()[0].spaces.active


def seen() -> Any:
    return space().region_3d


def head_of(rig: Any) -> Vector:
    settle()
    return Vector(effigy("viewport.live").state_of(rig).motion[:3, 3])


def look_from_front(rig: Any, distance: float = 0.75) -> None:
    seen().view_perspective, seen().view_distance = "PERSP", distance
    seen().view_location, seen().view_rotation = head_of(rig), FRONT
    settle()


def add(avatar: str) -> Iterator[float]:
    """The rig is the last of `rigs()` then."""
    before = {rig.armature.name for rig in rigs()}
    with in_view():
        bpy.ops.effigy.add_avatar("EXEC_DEFAULT", filepath=avatar, new_rig=True)
    yield from until(lambda: any(rig.armature.name not in before and rig.armature.effigy.avatar for rig in rigs()))
    new = next(rig for rig in rigs() if rig.armature.name not in before)
    AVATARS[new.armature.name] = avatar
    bpy.ops.object.select_all(action="DESELECT")
    yield from until(lambda: effigy("viewport.live").state_of(new))


def rigs() -> list[Any]:
    return list(effigy("rig.rig_properties").find_rigs(bpy.context.view_layer.objects))


def until(done: Callable[[], object], seconds: float = 240.0) -> Iterator[float]:
    last = time.monotonic() + seconds
    while not done():
        if time.monotonic() > last:
            states = [(task.title, task.state, task.message) for task in effigy("tasks").all_tasks()]
            raise RuntimeError(f"It took too long: {states}, {rigs()}, {list(effigy('worker.session').log)}")
        yield 0.2


def empty_file() -> Iterator[float]:
    bpy.ops.wm.read_homefile(use_empty=True)
    AVATARS.clear()
    yield 0.7
    plain()


def walk() -> Iterator[float]:
    try:
        backend = gpu.platform.backend_type_get()
        row("drawn by", None, backend.lower() == ORDER["gpu_backend"], f"{backend}, {gpu.platform.renderer_get()}")
        if ORDER["checks"]:
            yield from checks()
        if ORDER["pictures"]:
            from viewport_pictures import pictures

            yield from pictures(ORDER)
        row("closed with an avatar in the view", None, True)
        rows[-1]["worker"] = worker()
    finally:
        Path(ORDER["result"]).write_text(json.dumps(rows), "utf-8")


def worker() -> int:
    return effigy("worker.session").client().call("hello", {"arrays": "files"})["pid"]


def checks() -> Iterator[float]:
    yield from empty_file()
    yield from add(ORDER["avatar"])
    rig = rigs()[0]
    look_from_front(rig)
    for name, check in (("views", views), ("turned", turned), ("hidden", hidden), ("objects", objects)):
        if name in ORDER["checks"]:
            check(rig)
        yield 0.1
    for kind in ("WIREFRAME", "MATERIAL", "RENDERED") if "shading" in ORDER["checks"] else ():
        yield from shaded(rig, kind)
    if "two" in ORDER["checks"]:
        yield from two(rig)
    if "lifetime" in ORDER["checks"]:
        yield from lifetime()


def views(rig: Any) -> None:
    attempt("perspective, solid", lambda: matches(rig))
    rig.armature.effigy_view.mode = "BOTH"
    attempt("splats and wire differ from splats", lambda: differs(rig, 1.0))
    rig.armature.effigy_view.mode = "SPLATS"
    seen().view_perspective = "ORTHO"
    attempt("orthographic", lambda: matches(rig))
    seen().view_perspective = "PERSP"
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    head = head_of(rig)
    camera.location = head + Vector((0.15, -0.6, 0.05))
    camera.rotation_euler = (head - camera.location).to_track_quat("-Z", "Y").to_euler()
    seen().view_perspective = "CAMERA"
    camera.data.show_passepartout = False
    attempt("camera view", lambda: matches(rig))
    camera.data.type, camera.data.ortho_scale = "ORTHO", 0.4
    attempt("camera view, orthographic and shifted", lambda: shifted(camera, rig))
    camera.data.type, camera.data.shift_x = "PERSP", 0.0
    render = bpy.context.scene.render
    render.use_border, render.border_min_x, render.border_max_x = True, 0.3, 0.6
    attempt("camera view with a render border", lambda: matches(rig))
    render.use_border = False
    look_from_front(rig)
    space().show_region_header = space().show_region_tool_header = False
    attempt("a view of another size", lambda: matches(rig))
    space().show_region_header = True


def shifted(camera: Any, rig: Any) -> tuple[float, bool]:
    camera.data.shift_x = 0.1
    return matches(rig)


def differs(rig: Any, least: float) -> tuple[float, bool]:
    level, _ = matches(rig)
    return level, level > least


def turned(rig: Any) -> None:
    """The view turns about its own place, then about the world's origin, redrawn at each step and compared."""
    look_from_front(rig)
    eye = seen().view_matrix.inverted().translation.copy()
    for degrees in (8, -8):
        turn = Quaternion((0, 0, 1), np.radians(degrees))
        seen().view_rotation = turn @ FRONT
        seen().view_location = eye - seen().view_rotation @ Vector((0, 0, seen().view_distance))
        attempt(f"turned in place by {degrees} degrees", lambda: matches(rig))
    head = head_of(rig)
    seen().view_location, seen().view_distance = (0, 0, head.z), 0.75 + head.xy.length
    for degrees in (60, 120, 180, 240, 300):
        seen().view_rotation = Quaternion((0, 0, 1), np.radians(degrees)) @ FRONT
        attempt(f"orbited about the origin to {degrees} degrees", lambda: matches(rig))
    look_from_front(rig)


def levels(a: np.ndarray, b: np.ndarray) -> float:
    return 255 * float(np.abs(a - b).mean())


def is_gone(hide: Callable[[], object], show: Callable[[], object], empty: np.ndarray) -> tuple[float, bool]:
    """Hidden, the view is the empty one; shown again, it is not."""
    hide()
    redraw(2)
    level = levels(screen(), empty)
    show()
    settle()
    return level, level < 0.1 and levels(screen(), empty) > SAME


def hidden(rig: Any) -> None:
    mesh = rig.mesh
    mesh.hide_set(True)
    redraw(2)
    empty = screen()
    mesh.hide_set(False)
    settle()
    layer = bpy.context.view_layer.layer_collection.children[mesh.users_collection[0].name]
    attempt("hidden by the eye", lambda: is_gone(lambda: mesh.hide_set(True), lambda: mesh.hide_set(False), empty))
    attempt(
        "hidden with its collection",
        lambda: is_gone(
            lambda: setattr(layer, "hide_viewport", True), lambda: setattr(layer, "hide_viewport", False), empty
        ),
    )
    attempt(
        "hidden in viewports (screen icon)",
        lambda: is_gone(
            lambda: setattr(mesh, "hide_viewport", True), lambda: setattr(mesh, "hide_viewport", False), empty
        ),
    )
    attempt("hidden in local view of another", lambda: is_gone(alone(), alone(), empty))
    overlay = space().overlay
    attempt(
        "hidden with the overlays",
        lambda: is_gone(
            lambda: setattr(overlay, "show_overlays", False), lambda: setattr(overlay, "show_overlays", True), empty
        ),
    )
    bpy.context.scene.effigy_view.with_overlays = False
    overlay.show_overlays = False
    attempt("without overlays, where it is to stay", lambda: matches(rig))
    overlay.show_overlays, bpy.context.scene.effigy_view.with_overlays = True, True


def alone() -> Callable[[], None]:
    """Into local view of an object far away, and out again."""

    def toggle() -> None:
        other = bpy.data.objects.get("far away")
        if other is None:
            other = bpy.data.objects.new("far away", None)
            bpy.context.scene.collection.objects.link(other)
            other.location = 0, 90, 0
        leaving = space().local_view is not None
        bpy.context.view_layer.objects.active = other
        other.select_set(True)
        with in_view():
            bpy.ops.view3d.localview(frame_selected=False)
        other.select_set(False)
        if leaving:
            bpy.data.objects.remove(other)

    return toggle


def objects(rig: Any) -> None:
    """A cube before, behind and inside the head."""
    look_from_front(rig)
    alone_, truth = screen(), rasterised([rig], [AVATARS[rig.armature.name]])
    inside = truth["alpha"] > 0.99
    ys, xs = np.nonzero(inside)
    middle = np.zeros_like(inside)
    middle[int(ys.mean()) - 6 : int(ys.mean()) + 6, int(xs.mean()) - 6 : int(xs.mean()) + 6] = True
    # On the line from the eye through the middle of what is seen.
    eye = seen().view_matrix.inverted()
    depth = float(np.median(truth["depth"][middle]))
    window = np.array(seen().window_matrix)
    height, width = inside.shape
    x, y = (2 * xs.mean() / width - 1) / window[0, 0], (1 - 2 * ys.mean() / height) / window[1, 1]

    def at(distance: float) -> Vector:
        return eye @ Vector((x * distance, y * distance, -distance))

    def cube(distance: float, side: float) -> tuple[np.ndarray, np.ndarray]:
        with in_view():
            bpy.ops.mesh.primitive_cube_add(size=side, location=at(distance))
        made = bpy.context.object
        made.select_set(False)
        redraw(2)
        with_head = screen()
        rig.mesh.hide_set(True)
        redraw(2)
        without = screen()
        rig.mesh.hide_set(False)
        bpy.data.objects.remove(made)
        settle()
        return with_head, without

    def before() -> tuple[float, bool]:
        with_head, without = cube(depth - 0.15, 0.05)
        level = levels(with_head[middle], without[middle])
        return level, level < SAME and levels(with_head[middle], alone_[middle]) > 5

    def behind() -> tuple[float, bool]:
        with_head, without = cube(depth + 0.3, 0.08)
        level = levels(with_head[inside], alone_[inside])
        return level, level < SAME and levels(without[middle], with_head[middle]) > 5

    def within() -> tuple[float, bool]:
        with_head, _ = cube(depth + 0.06, 0.05)
        level = levels(with_head[middle], alone_[middle])
        return level, level < SAME

    def out() -> tuple[float, bool]:
        """A large one, from inside the head to before the face."""
        with_head, without = cube(depth, 0.08)
        level = levels(with_head[middle], without[middle])
        return level, level < SAME and levels(with_head[middle], alone_[middle]) > 5

    for what, check in (
        ("a cube before the head hides it", before),
        ("a cube behind is hidden", behind),
        ("a cube inside is hidden", within),
        ("a cube that comes out of the face is seen", out),
    ):
        attempt(what, check)


def shaded(rig: Any, kind: str) -> Iterator[float]:
    look_from_front(rig)
    if kind in ("MATERIAL", "RENDERED"):
        engines = [item.identifier for item in bpy.types.RenderSettings.bl_rna.properties["engine"].enum_items]
        bpy.context.scene.render.engine = next((name for name in engines if "EEVEE" in name), "BLENDER_EEVEE_NEXT")
    space().shading.type = kind
    # EEVEE compiles its shaders, and adds samples until the picture stands.
    yield 1.0
    if kind in ("MATERIAL", "RENDERED"):
        bpy.context.scene.eevee.taa_samples = 1
        for _ in range(12):
            redraw()
            yield 1.0
    attempt(f"shading {kind.lower()}", lambda: matches(rig))
    space().shading.type = "SOLID"


def two(rig: Any) -> Iterator[float]:
    yield from add(ORDER["second"])
    other = next(made for made in rigs() if made.armature.name != rig.armature.name)
    look_from_front(rig)
    for name, y in (("behind", 0.09), ("before", -0.09), ("within", 0.0)):
        other.armature.location = head_of(rig) + Vector((0.07, y, 0)) - _rest(other)
        settle()
        attempt(f"a second avatar {name} the first", lambda: matches(rig, other))
    yield 0.1


def _rest(rig: Any) -> Vector:
    """Where the head is while its armature lies at the origin."""
    rig.armature.location = 0, 0, 0
    bpy.context.view_layer.update()
    return head_of(rig)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def lifetime() -> Iterator[float]:
    yield from empty_file()
    yield from add(ORDER["avatar"])
    rig = rigs()[0]
    name = rig.armature.name
    look_from_front(rig)
    with in_view():
        bpy.ops.ed.undo_push(message="shown")
        rig.key_blocks["jawOpen"].value = 0.8
        bpy.ops.ed.undo_push(message="posed")
        settle()
        bpy.ops.ed.undo()
    yield 0.3
    rig = rigs()[0]
    attempt("after undo", lambda: (matches(rig)[0], matches(rig)[1] and rig.key_blocks["jawOpen"].value == 0))
    with in_view():
        bpy.ops.ed.redo()
    yield 0.3
    rig = rigs()[0]
    attempt("after redo", lambda: matches(rig))
    path = str(Path(ORDER["folder"]) / "saved.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    for obj in (rig.mesh, rig.armature):
        bpy.data.objects.remove(obj)
    redraw(3)
    gone, draw = screen(), effigy("viewport.draw")
    row(
        "deleted: nothing kept on the GPU",
        None,
        np.ptp(gone[..., 0]) < 0.5 and not draw.state.textures and not draw.state.meshes,
        f"{len(draw.state.textures)} textures, {len(draw.state.meshes)} meshes",
    )
    bpy.ops.wm.open_mainfile(filepath=path)
    yield 1.0
    plain()
    attempt("saved and loaded", lambda: matches(rigs()[0]))
    bpy.ops.script.reload()
    yield 1.0
    attempt("scripts reloaded", lambda: matches(rigs()[0]))
    process = worker()
    row("one worker while it is shown", None, is_running(process))
    draw, shaders = effigy("viewport.draw"), effigy("viewport.shared_shaders")
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    redraw(2)
    yield 1.5
    left = [
        f"{len(kept)} {what}"
        for what, kept in (
            ("draw handlers", draw.state.handles),
            ("views", draw.state.views),
            ("textures", draw.state.textures),
            ("meshes", draw.state.meshes),
            ("shaders", shaders._shared.shaders),
        )
        if kept
    ]
    left += [
        f"{kind}: {handler.__name__}"
        for kind in dir(bpy.app.handlers)
        if isinstance(getattr(bpy.app.handlers, kind), list)
        for handler in getattr(bpy.app.handlers, kind)
        if getattr(handler, "__module__", "").startswith(PACKAGE)
    ]
    row("disabled: no handler, no texture", None, not left, ", ".join(left))
    row("disabled: no worker", None, not is_running(process))
    bpy.ops.preferences.addon_enable(module=PACKAGE)
    yield 1.0
    attempt("enabled again", lambda: matches(rigs()[0]))
    assert rigs()[0].armature.name == name
    bpy.ops.wm.read_homefile(use_empty=True)
    yield 0.7
    redraw(3)
    kept = effigy("viewport.draw").state
    row(
        "another file: nothing kept of this one",
        None,
        not effigy("viewport.live").state.avatars and not kept.textures and not kept.meshes,
        f"{len(kept.textures)} textures, {len(kept.meshes)} meshes",
    )
    yield from add(ORDER["avatar"])
    look_from_front(rigs()[0])


def start() -> None:
    bpy.context.preferences.view.show_splash = False
    bpy.ops.extensions.package_install_files(filepath=ORDER["package"], repo="user_default", enable_on_install=True)
    end_with(walk())


start()
