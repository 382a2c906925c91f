"""The wire meshes by which Blender shows the handles, in units of a handle's length, in the plane of its movement."""

from __future__ import annotations

from math import cos, pi, sin
from typing import Final

import bpy

SHAPE_PROPERTY: Final = "effigy_handle_shape"
"""Custom property on a shape's object: which one it is."""

Line = list[tuple[float, float]]


def _ring(width: float, height: float, corners: int = 24) -> Line:
    angles = [2 * pi * step / corners for step in range(corners + 1)]
    return [(width * cos(angle), height * sin(angle)) for angle in angles]


def _box(width: float, height: float) -> Line:
    return [(-width, -height), (width, -height), (width, height), (-width, height), (-width, -height)]


def _arc(width: float, height: float, corners: int = 12) -> Line:
    angles = [pi * step / corners for step in range(corners + 1)]
    return [(width * cos(angle), height * sin(angle)) for angle in angles]


_LINES: Final[dict[str, list[Line]]] = {
    "ball": [_ring(0.22, 0.22, 12)],
    "lid": [_ring(0.45, 0.14, 16)],
    "corner": [_ring(0.26, 0.26, 12), [(-0.26, 0), (0.26, 0)], [(0, -0.26), (0, 0.26)]],
    "mouth": [_ring(3.6, 1.9, 40)],
    "jaw": [[(x, -0.7 * y) for x, y in _arc(1.3, 0.7)], [(-1.3, 0), (-1.05, 0)], [(1.3, 0), (1.05, 0)]],
    "eye": [_ring(1.0, 1.0, 24)],
    "gaze": [_ring(0.5, 0.3, 16), [(-0.8, 0), (0.8, 0)]],
    "slider": [_box(0.4, 0.16), [(-0.4, 0), (0.4, 0)]],
    "pad": [_ring(0.3, 0.3, 16)],
}
_FRAMES: Final[dict[str, list[Line]]] = {
    "slider": [_box(0.5, 2.2), [(-0.5, 0), (0.5, 0)]],
    "pad": [_box(2.3, 2.3), [(-2.3, 0), (2.3, 0)], [(0, -2.3), (0, 2.3)]],
}
_LABEL_SIZE: Final = 0.62
_LABEL_HEIGHT: Final = -2.9


def handle_shape(name: str) -> bpy.types.Object:
    """The object of a handle's shape, made if the file has none."""
    return _shape(name, _LINES[name], "")


def frame_shape(name: str, label: str) -> bpy.types.Object:
    """The object of the frame within which a handle of the board moves, with its label below."""
    return _shape(f"{name} {label}", _FRAMES[name], label)


def remove_unused() -> None:
    """Removes the shapes that no bone shows any more."""
    for obj in [obj for obj in bpy.data.objects if SHAPE_PROPERTY in obj and obj.library is None and not obj.users]:
        bpy.data.meshes.remove(obj.data)


def _shape(name: str, lines: list[Line], label: str) -> bpy.types.Object:
    for obj in bpy.data.objects:
        if obj.get(SHAPE_PROPERTY) == name and obj.type == "MESH" and obj.library is None:
            return obj
    vertices, edges = _text(label) if label else ([], [])
    for line in lines:
        first = len(vertices)
        vertices += [(x, y, 0.0) for x, y in line]
        edges += [(first + step, first + step + 1) for step in range(len(line) - 1)]
    mesh = bpy.data.meshes.new(f"Handle {name}")
    mesh.from_pydata(vertices, edges, [])
    # It is in no collection, so that it is seen nowhere but at its bones.
    obj = bpy.data.objects.new(mesh.name, mesh)
    obj[SHAPE_PROPERTY] = name
    return obj


def _text(label: str) -> tuple[list[tuple[float, float, float]], list[tuple[int, int]]]:
    """Vertices and edges of the outlines of a label."""
    curve = bpy.data.curves.new("label", "FONT")
    curve.body, curve.size, curve.align_x, curve.fill_mode = label, _LABEL_SIZE, "CENTER", "NONE"
    curve.resolution_u = 3
    obj = bpy.data.objects.new("label", curve)
    mesh = bpy.data.meshes.new_from_object(obj)
    vertices = [(vertex.co.x, vertex.co.y + _LABEL_HEIGHT, 0.0) for vertex in mesh.vertices]
    edges = [(edge.vertices[0], edge.vertices[1]) for edge in mesh.edges]
    bpy.data.batch_remove((obj, curve, mesh))
    return vertices, edges
