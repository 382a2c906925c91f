"""Controls Blender's window from inside Blender, on X11: regions, mouse clicks and screenshots.

ImageMagick's `import` takes the screenshots, because Blender's own are black under some drivers. `xdotool` moves the
mouse, for the few actions that Blender has no function for.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bpy

WIDTH, HEIGHT = 1280, 900
"""Size of the window in pixels; it is placed in the top left corner of the screen."""
TOOLS = {"import": "ImageMagick", "xdotool": "xdotool"}
LONG_WAIT = 900.0
"""Seconds; more than any step of the guide takes."""

Box = tuple[int, int, int, int]
"""left, top, width, height in pixels of the screen."""
HEADER_X, FIRST_HEADER, NEXT_HEADER = 830, 97, 28
"""Screen position of the headers of the sidebar's panels while all are closed."""
WHOLE: Box = (0, 0, WIDTH, HEIGHT)


def missing_tools() -> list[str]:
    return [f"{tool} ({package})" for tool, package in TOOLS.items() if not shutil.which(tool)]


def main_window() -> bpy.types.Window:
    return bpy.context.window_manager.windows[0]


def area(kind: str = "VIEW_3D") -> bpy.types.Area:
    return next(area for area in main_window().screen.areas if area.type == kind)


def region(kind: str, of: bpy.types.Area) -> bpy.types.Region:
    return next(region for region in of.regions if region.type == kind)


def box_of(part: bpy.types.Area | bpy.types.Region) -> Box:
    """The box of an area or region on the screen. Blender's y axis starts at the bottom, the screen's at the top."""
    return part.x, HEIGHT - part.y - part.height, part.width, part.height


def context() -> object:
    view = area()
    return bpy.context.temp_override(window=main_window(), area=view, region=region("WINDOW", view))


def click(x: int, y: int, *keys: str) -> None:
    steps = ["mousemove", str(x), str(y)]
    for key in keys:
        steps += ["keydown", key]
    steps += ["click", "1"]
    for key in keys:
        steps += ["keyup", key]
    subprocess.run(["xdotool", *steps], check=True)


def press(key: str, where: tuple[int, int] = (200, 700)) -> None:
    """Press a key with the mouse at `where`, by default over the 3D View."""
    subprocess.run(["xdotool", "mousemove", str(where[0]), str(where[1]), "key", key], check=True)


def rest_mouse() -> None:
    """Move the mouse to a corner where it highlights nothing and shows no tooltip."""
    subprocess.run(["xdotool", "mousemove", str(WIDTH - 1), str(HEIGHT - 1)], check=True)


def shot(path: Path, box: Box = WHOLE) -> None:
    """Save a part of the screen with 255 colours, as PNG or WebP by the file's name. It is not dithered, because on
    plain areas dithering is visible.
    """
    left, top, width, height = box
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            "import",
            "-window",
            "root",
            "-crop",
            f"{width}x{height}+{left}+{top}",
            "+repage",
            "+dither",
            "-colors",
            "255",
            "-define",
            "png:compression-level=9" if path.suffix == ".png" else "webp:lossless=true",
            f"PNG8:{path}" if path.suffix == ".png" else str(path),
        ],
        check=True,
    )
    print(f"  {path.name}: {path.stat().st_size // 1000} kB", flush=True)


def floating_window() -> tuple[int, Box]:
    """X11's window number and the box of Blender's window above the main one: preferences, file browser or render."""
    found = subprocess.run(["xdotool", "search", "--onlyvisible", "--class", "blender"], capture_output=True, text=True)
    for number in reversed(found.stdout.split()):
        geometry = subprocess.run(["xdotool", "getwindowgeometry", "--shell", number], capture_output=True, text=True)
        values = dict(line.split("=", 1) for line in geometry.stdout.splitlines() if "=" in line)
        box = tuple(int(values[name]) for name in ("X", "Y", "WIDTH", "HEIGHT"))
        if box[2:] not in ((WIDTH, HEIGHT), (1, 1)) and box[2] > 100:
            return int(number), box
    raise RuntimeError("Blender opened no second window.")


def place(number: int, box: Box) -> None:
    left, top, width, height = map(str, box)
    subprocess.run(
        ["xdotool", "windowmove", str(number), left, top, "windowsize", str(number), width, height], check=True
    )


def close_floating() -> None:
    """Close every window but the main one."""
    manager = bpy.context.window_manager
    for window in list(manager.windows)[1:]:
        with bpy.context.temp_override(window=window):
            bpy.ops.wm.window_close()


def open_tab(name: str) -> Iterator[float]:
    """Open a tab in the sidebar of the 3D View by clicking it, because Blender has no function for that."""
    view = area()
    view.spaces.active.show_region_ui = True
    yield 0.7
    sidebar = region("UI", view)
    left, top, width, height = box_of(sidebar)
    for down in range(25, min(height, 400), 25):
        if sidebar.active_panel_category == name:
            break
        click(left + width - 12, top + down)
        yield 0.4
    rest_mouse()
    yield 0.3


def panels_of(package: str) -> list[type[bpy.types.Panel]]:
    """The panels of the extension's tab that are shown now, from the top down; none that lies in another panel."""
    found = [
        panel
        for panel in bpy.types.Panel.__subclasses__()
        if panel.__module__.startswith(f"{package}.blender_addon.panels")
        and panel.is_registered
        and not hasattr(panel, "bl_parent_id")
        and (not hasattr(panel, "poll") or panel.poll(bpy.context))
    ]
    return sorted(found, key=lambda panel: panel.bl_order)


def show_panels(package: str, *names: str) -> Iterator[float]:
    """Open these panels of the tab and close the others, by the mouse, because Blender has no function for that."""
    with context():
        order = [panel.__name__ for panel in panels_of(package)]
    # Ctrl closes all panels but the one that is clicked.
    click(HEADER_X, FIRST_HEADER, "ctrl")
    yield 1.0
    click(HEADER_X, FIRST_HEADER)
    yield 1.0
    for number in sorted(map(order.index, names), reverse=True):
        click(HEADER_X, FIRST_HEADER + number * NEXT_HEADER)
        yield 1.0
    rest_mouse()
    # Blender draws a panel empty while it opens.
    yield 4.0


def unfold(*panels: type[bpy.types.Panel]) -> None:
    """Panels within other panels, which Blender has not drawn yet, begin open."""
    for panel in panels:
        bpy.utils.unregister_class(panel)
        panel.bl_options = set()
        bpy.utils.register_class(panel)
