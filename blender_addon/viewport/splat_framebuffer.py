"""Drawing packed splats for one view: uploaded, sorted, blended in a picture of their own, and laid over the view.

The splats are blended in a picture of their own because they are to be mixed as they were trained, in encoded values and
with more than eight bits, and Blender's views mix otherwise. With the colour the mean distance of what covers a pixel is
blended, and the picture is laid over the view at that depth, tested against the scene and written: objects hide the
head and the head hides objects, pixel by pixel, as in the render engine's depth composite.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Matrix

from .shaders import WIDTH, composite_shader, mesh_shader, splat_shader
from .sorting import back_to_front
from .splats import Packed

NEAR: Final = 0.01
FAR: Final = 1e9
"""Metres, where there is no mesh."""
GROUND: Final = (0.239, 0.239, 0.239)
"""The 3D View's, in Blender's own theme."""
BLOCK: Final = 64
"""Pixels: the picture's sides are multiples of this, so that it need not be made anew for each small move."""

_TRIANGLE: Final = ((0.0, 2.0), (-(3**0.5), -1.0), (3**0.5, -1.0))
"""Around a circle of radius 1: one triangle costs less than two, though a little more lies outside the ellipse."""
_SQUARE: Final = ((0, 0), (1, 0), (0, 1), (1, 1))


@dataclass(frozen=True)
class Lens:
    """A view's camera. Blender's world, OpenGL's axes."""

    view: np.ndarray
    """(4, 4) float64 world to view."""
    projection: np.ndarray
    """(4, 4) float64 view to clip space."""
    width: int
    """Pixels."""
    height: int

    @property
    def orthographic(self) -> bool:
        return self.projection[3, 3] > 0.5

    def pixels(self) -> tuple[float, float, float, float]:
        """Focal lengths (pixels, or pixels per metre) and centre, from the lower left corner."""
        p = self.projection
        shift = p[:2, 3] if self.orthographic else -p[:2, 2]
        return (
            p[0, 0] * self.width / 2,
            p[1, 1] * self.height / 2,
            (1 + shift[0]) * self.width / 2,
            (1 + shift[1]) * self.height / 2,
        )

    def coarser(self, step: int) -> Lens:
        """The same view in pixels `step` times as large; what is over at the right and the top is cut off."""
        width, height = -(-self.width // step), -(-self.height // step)
        if step == 1:
            return self
        # Whole large pixels may reach beyond the view: its right and upper edge move outwards with them.
        grow = np.eye(4)
        for axis, small, large in ((0, self.width, width * step), (1, self.height, height * step)):
            grow[axis, axis] = small / large
            grow[axis, 3] = small / large - 1
        return Lens(self.view, grow @ self.projection, width, height)

    def key(self) -> bytes:
        return self.view.tobytes() + self.projection.tobytes() + bytes(f"{self.width} {self.height}", "ascii")


class MeshOnGpu(Protocol):
    surface: gpu.types.GPUBatch
    """Triangles, with the attribute `pos` (3,)."""
    world: np.ndarray
    """(4, 4) float64"""
    changed_at: float


class Uploaded:
    """Packed splats on the GPU. Made in a GPU context, like everything of the `gpu` module."""

    _serials = itertools.count()

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.serial = next(self._serials)
        self.texture = _texture(packed.numbers.ravel(), WIDTH * 4, "RGBA32F")


class Picture:
    """The splats as one view sees them. Kept from one redraw to the next: nothing is drawn or sorted without need."""

    def __init__(self, encodes: bool = True) -> None:
        """`encodes`: whether the framebuffer that it is laid over encodes as sRGB what is written to it."""
        self._encodes = encodes
        self._size = 0, 0
        self._step = 1
        self._drawn: tuple | None = None
        self._sorted: tuple[int, np.ndarray] | None = None
        self._order: gpu.types.GPUTexture | None = None
        self._window = 0, 0, 0, 0
        """Left, lowest, width and height of the picture within the view, pixels."""

    def draw(self, uploaded: Uploaded, lens: Lens, meshes: Sequence[MeshOnGpu] = (), step: int = 1) -> None:
        """Bring the picture up to date. `meshes`: the avatars' own, which must not hide them. `step`: the side of its
        pixels in the view's; drawing takes as long as there are pixels."""
        key = uploaded.serial, lens.key(), tuple((id(mesh), mesh.changed_at) for mesh in meshes)
        if self._drawn == key and self._step <= step:
            return
        self._step, lens = step, lens.coarser(step)
        packed = uploaded.packed
        view = lens.view.copy()
        view[:3, 3] += view[:3, :3] @ packed.origin
        self._drawn = key
        self._window = _window(packed, view, lens)
        left, low, width, height = self._window
        if width == 0:
            return
        self._make(width, height)
        self._draw_meshes(meshes, lens.view, lens)
        self._sort(uploaded, -view[2, :3])
        fx, fy, cx, cy = lens.pixels()
        corners = _corners(packed) @ view[2, :3] + view[2, 3]
        with self._frame.bind():
            self._color.clear(format="FLOAT", value=(0.0, 0.0, 0.0, 0.0))
            self._depth.clear(format="FLOAT", value=(0.0,))
            gpu.state.viewport_set(0, 0, *self._size)
            gpu.state.depth_test_set("NONE")
            gpu.state.depth_mask_set(False)
            gpu.state.face_culling_set("NONE")
            gpu.state.blend_set("ALPHA_PREMULT")
            shader = _shader("splats", splat_shader)
            shader.bind()
            shader.uniform_float("view", Matrix(view.tolist()))
            shader.uniform_float("lens", (fx, fy, cx, cy))
            shader.uniform_float("size", (lens.width, lens.height))
            shader.uniform_float("window", (left, low, *self._size))
            shader.uniform_float("lens_kind", (-corners.max(), -corners.min(), float(lens.orthographic), 0.0))
            shader.uniform_sampler("numbers", uploaded.texture)
            shader.uniform_sampler("order", self._order)
            _batch("splats", shader).draw_instanced(shader, instance_count=len(packed.numbers))
            gpu.state.blend_set("NONE")

    def lay_over(self, lens: Lens, ground: Sequence[float] = GROUND) -> None:
        """Composite over the bound framebuffer, whose viewport is the view, at the splats' own depth. `ground`: the
        encoded colour of what most likely lies behind (`shaders`)."""
        left, low, width, height = (self._step * pixels for pixels in self._window)
        if width == 0:
            return
        gpu.state.depth_test_set("LESS_EQUAL")
        gpu.state.depth_mask_set(True)
        gpu.state.blend_set("ALPHA_PREMULT")
        shader = _shader("composite", composite_shader)
        shader.bind()
        shader.uniform_float(
            "target",
            (left / lens.width * 2 - 1, low / lens.height * 2 - 1, width / lens.width * 2, height / lens.height * 2),
        )
        p = lens.projection
        shader.uniform_float("projection", (p[2, 2], p[2, 3], float(lens.orthographic), float(self._encodes)))
        corner = gpu.state.viewport_get()[:2]
        shader.uniform_float("origin", (left + corner[0], low + corner[1], float(self._step)))
        shader.uniform_float("ground", tuple(ground))
        shader.uniform_sampler("picture", self._color)
        shader.uniform_sampler("depths", self._depth)
        shader.uniform_sampler("mesh_depths", self._mesh_distance)
        _batch("composite", shader).draw(shader)
        gpu.state.blend_set("NONE")
        gpu.state.depth_mask_set(False)
        gpu.state.depth_test_set("NONE")

    def _draw_meshes(self, meshes: Sequence[MeshOnGpu], view: np.ndarray, lens: Lens) -> None:
        """How far the rigs' own meshes are, where they are before the splats."""
        left, low, _, _ = self._window
        # From the whole view to the part of it that the picture is.
        part = np.eye(4)
        part[0, 0], part[1, 1] = lens.width / self._size[0], lens.height / self._size[1]
        part[0, 3] = part[0, 0] - 1 - 2 * left / self._size[0]
        part[1, 3] = part[1, 1] - 1 - 2 * low / self._size[1]
        with self._mesh_frame.bind():
            self._mesh_distance.clear(format="FLOAT", value=(FAR,))
            self._mesh_depth.clear(format="FLOAT", value=(1.0,))
            gpu.state.viewport_set(0, 0, *self._size)
            gpu.state.depth_test_set("LESS_EQUAL")
            gpu.state.depth_mask_set(True)
            gpu.state.blend_set("NONE")
            shader = _shader("mesh", mesh_shader)
            shader.bind()
            for mesh in meshes:
                model_view = view @ mesh.world
                shader.uniform_float("placed", Matrix((part @ lens.projection @ model_view).tolist()))
                shader.uniform_float("axis", tuple(-model_view[2]))
                mesh.surface.draw(shader)
            gpu.state.depth_mask_set(False)
            gpu.state.depth_test_set("NONE")

    def _make(self, width: int, height: int) -> None:
        if self._size == (width, height):
            return
        self._size = width, height
        self._color = gpu.types.GPUTexture(self._size, format="RGBA16F")
        self._depth = gpu.types.GPUTexture(self._size, format="R32F")
        self._frame = gpu.types.GPUFrameBuffer(color_slots=(self._color, self._depth))
        self._mesh_distance = gpu.types.GPUTexture(self._size, format="R32F")
        self._mesh_depth = gpu.types.GPUTexture(self._size, format="DEPTH_COMPONENT32F")
        self._mesh_frame = gpu.types.GPUFrameBuffer(depth_slot=self._mesh_depth, color_slots=(self._mesh_distance,))

    def _sort(self, uploaded: Uploaded, forward: np.ndarray) -> None:
        if self._sorted is not None and self._sorted[0] == uploaded.serial and np.array_equal(self._sorted[1], forward):
            return
        self._sorted = uploaded.serial, forward.copy()
        self._order = _texture(back_to_front(uploaded.packed.means, forward).astype(np.float32), WIDTH, "R32F")


def _window(packed: Packed, view: np.ndarray, lens: Lens) -> tuple[int, int, int, int]:
    """The part of the view that the splats may cover; all zero where they are out of sight."""
    corners = _corners(packed) @ view[:3, :3].T + view[:3, 3]
    fx, fy, cx, cy = lens.pixels()
    low, high = np.zeros(2), np.array((lens.width, lens.height), np.float64)
    depths = -corners[:, 2]
    if not lens.orthographic and depths.max() < NEAR:
        return 0, 0, 0, 0
    if lens.orthographic or depths.min() > NEAR:
        share = 1.0 if lens.orthographic else 1 / depths[:, None]
        pixels = corners[:, :2] * share * (fx, fy) + (cx, cy)
        low, high = np.maximum(low, pixels.min(0) - 3), np.minimum(high, pixels.max(0) + 3)
    if (high <= low).any():
        return 0, 0, 0, 0
    left, bottom = (int(edge) for edge in low)
    width, height = (-(-int(np.ceil(side)) // BLOCK) * BLOCK for side in (high[0] - left, high[1] - bottom))
    return left, bottom, width, height


def _corners(packed: Packed) -> np.ndarray:
    """(8, 3) of the box around the splats."""
    return np.array(list(itertools.product(*zip(packed.low, packed.high))), np.float64)


def _texture(values: np.ndarray, row: int, kind: str) -> gpu.types.GPUTexture:
    """Floats, filled up to whole rows of `row` numbers."""
    height = max(1, -(-len(values) // row))
    filled = np.zeros(height * row, np.float32)
    filled[: len(values)] = values
    return gpu.types.GPUTexture((WIDTH, height), format=kind, data=gpu.types.Buffer("FLOAT", len(filled), filled))


_kept: dict[str, object] = {}
"""Shaders and the two shapes: made when first drawn with, since there is no GPU before."""


def _shader(name: str, make: object) -> gpu.types.GPUShader:
    if name not in _kept:
        _kept[name] = make()
    return _kept[name]


def _batch(name: str, shader: gpu.types.GPUShader) -> gpu.types.GPUBatch:
    key = f"{name} shape"
    if key not in _kept:
        kind, corners = ("TRI_STRIP", _SQUARE) if name == "composite" else ("TRIS", _TRIANGLE)
        _kept[key] = batch_for_shader(shader, kind, {"corner": corners})
    return _kept[key]


def release() -> None:
    _kept.clear()
