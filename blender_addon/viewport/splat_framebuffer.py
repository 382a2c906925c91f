"""Draws packed splats for one view: uploads, sorts and blends them in an off-screen framebuffer, then composites it.

The splats have their own framebuffer because they must be blended as in training, in sRGB-encoded values and with more
than eight bits, and Blender's views blend differently. The depths of the splats that cover a pixel are blended like
their colours, which gives the pixel's mean depth. The result is composited over the view at that depth, which is tested
against the scene's depth and written. So objects hide the head and the head hides objects, pixel by pixel, as in the
render engine's depth composite.
"""

# fake-bpy-module 5.0 declares the types of `gpu` without constructors and its context managers as None.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import gpu
import numpy as np
from mathutils import Matrix

from . import shaders, shared_shaders
from .shaders import TEXTURE_WIDTH
from .sorting import back_to_front
from .splats import PackedSplats

NEAR: Final = 0.01
"""Metres: distance of the near plane."""
FAR: Final = 1e9
"""Metres: depth of pixels without a mesh."""
BACKGROUND: Final = (0.239, 0.239, 0.239)
"""Background of the 3D View in Blender's default theme."""
BLOCK: Final = 64
"""Pixels. The framebuffer's sides are multiples of this, so that a small move of the view does not reallocate it."""


@dataclass(frozen=True)
class ViewCamera:
    """The camera of a view: Blender's world, OpenGL's axes."""

    view: np.ndarray
    """(4, 4) float64 world to view."""
    projection: np.ndarray
    """(4, 4) float64 view to clip space."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""

    @property
    def orthographic(self) -> bool:
        return self.projection[3, 3] > 0.5

    def intrinsics(self) -> tuple[float, float, float, float]:
        """Focal lengths fx, fy (pixels, or pixels per metre for an orthographic view) and centre cx, cy from the lower
        left corner.
        """
        p = self.projection
        shift = p[:2, 3] if self.orthographic else -p[:2, 2]
        return (
            p[0, 0] * self.width / 2,
            p[1, 1] * self.height / 2,
            (1 + shift[0]) * self.width / 2,
            (1 + shift[1]) * self.height / 2,
        )

    def at_lower_resolution(self, step: int) -> ViewCamera:
        """The same view with pixels `step` times as large, rounded up to whole pixels at the right and the top."""
        width, height = -(-self.width // step), -(-self.height // step)
        if step == 1:
            return self
        # The last large pixels may extend beyond the view, so its right and upper edges move outwards.
        grow = np.eye(4)
        for axis, small, large in ((0, self.width, width * step), (1, self.height, height * step)):
            grow[axis, axis] = small / large
            grow[axis, 3] = small / large - 1
        return ViewCamera(self.view, grow @ self.projection, width, height)

    def key(self) -> bytes:
        """Equal for equal cameras."""
        return self.view.tobytes() + self.projection.tobytes() + bytes(f"{self.width} {self.height}", "ascii")


class MeshSurface(Protocol):
    """What is drawn of a rig's mesh (`mesh.MeshBatches`)."""

    surface: gpu.types.GPUBatch
    """Triangles, with the attribute `pos` (3,)."""
    world: np.ndarray
    """(4, 4) float64 object to world."""
    changed_at: float
    """`perf_counter` of the last change; with another value the framebuffer is drawn again."""


class SplatTexture:
    """Packed splats, uploaded to a texture of TEXTURE_WIDTH texels per row, four texels per splat. Must be created in a
    GPU context, like every object of the `gpu` module.
    """

    _serials = itertools.count()

    def __init__(self, packed: PackedSplats) -> None:
        self.packed = packed
        self.serial = next(self._serials)
        self.texture = _texture(packed.values.ravel(), TEXTURE_WIDTH * 4, "RGBA32F")


class SplatFramebuffer:
    """The splats as one view sees them. Kept between redraws, so that splats are drawn and sorted only after a
    change.
    """

    def __init__(
        self,
        encodes: bool = True,
        programs: shared_shaders.ShaderSet = shared_shaders.viewport,
        color_format: str = "RGBA16F",
    ) -> None:
        """`encodes`: whether the framebuffer that this one is composited over encodes written values as sRGB."""
        self._encodes, self._programs, self._color_format = encodes, programs, color_format
        self._size = 0, 0
        self._step = 1
        self._drawn: tuple | None = None
        self._sorted: tuple[int, np.ndarray] | None = None
        self._order: gpu.types.GPUTexture | None = None
        self._window = 0, 0, 0, 0
        """Left, bottom, width and height of this framebuffer within the view, in pixels of `_step` view pixels."""

    def draw(self, splats: SplatTexture, camera: ViewCamera, meshes: Sequence[MeshSurface] = (), step: int = 1) -> None:
        """Updates the framebuffer, unless it already has these splats, camera and meshes at this resolution or a higher
        one.

        `meshes` are the rigs' meshes, which must not hide their avatars. `step` is the side of a framebuffer pixel in
        view pixels; the drawing time is proportional to the number of pixels.
        """
        key = splats.serial, camera.key(), tuple((id(mesh), mesh.changed_at) for mesh in meshes)
        if self._drawn == key and self._step <= step:
            return
        self._step, camera = step, camera.at_lower_resolution(step)
        packed = splats.packed
        view = camera.view.copy()
        view[:3, 3] += view[:3, :3] @ packed.origin
        self._drawn = key
        self._window = _window(packed, view, camera)
        left, bottom, width, height = self._window
        if width == 0:
            return
        self._allocate(width, height)
        self._draw_meshes(meshes, camera.view, camera)
        self._sort(splats, -view[2, :3])
        fx, fy, cx, cy = camera.intrinsics()
        corners = _corners(packed) @ view[2, :3] + view[2, 3]
        with self._frame.bind():
            self._color.clear(format="FLOAT", value=(0.0, 0.0, 0.0, 0.0))
            self._depth.clear(format="FLOAT", value=(0.0,))
            gpu.state.viewport_set(0, 0, *self._size)
            gpu.state.depth_test_set("NONE")
            gpu.state.depth_mask_set(False)
            gpu.state.face_culling_set("NONE")
            gpu.state.blend_set("ALPHA_PREMULT")
            shader = self._programs.shader("splats")
            shader.bind()
            shader.uniform_float("view", Matrix(view.tolist()))
            shader.uniform_float("intrinsics", (fx, fy, cx, cy))
            shader.uniform_float("size", (camera.width, camera.height))
            shader.uniform_float("window", (left, bottom, *self._size))
            shader.uniform_float("depth_range", (-corners.max(), -corners.min(), float(camera.orthographic), 0.0))
            shader.uniform_sampler("splats", splats.texture)
            shader.uniform_sampler("order", self._order)
            self._programs.batch("splats").draw_instanced(shader, instance_count=len(packed.values))
            gpu.state.blend_set("NONE")

    def read(self, camera: ViewCamera) -> tuple[np.ndarray, np.ndarray]:
        """What `draw` has drawn for `camera` at full resolution, the top row first: colour and alpha (H, W, 4),
        premultiplied, and depth times alpha (H, W), metres.
        """
        color, depth = (
            np.zeros((camera.height, camera.width, 4), np.float32),
            np.zeros((camera.height, camera.width), np.float32),
        )
        left, bottom, width, height = self._window
        if width:
            # The framebuffer may extend beyond the view.
            rows, columns = min(height, camera.height - bottom), min(width, camera.width - left)
            part = slice(bottom, bottom + rows), slice(left, left + columns)
            color[part] = _values(self._color, (height, width, 4))[:rows, :columns]
            depth[part] = _values(self._depth, (height, width))[:rows, :columns]
        return color[::-1], depth[::-1]

    def composite(self, camera: ViewCamera, background: Sequence[float] = BACKGROUND) -> None:
        """Composites over the bound framebuffer at the splats' depth, and writes that depth.

        `camera` is the one that was given to `draw`; the bound framebuffer's viewport must be that of the view.
        `background` is the sRGB-encoded colour that is assumed behind the splats (see `shaders`).
        """
        left, bottom, width, height = (self._step * pixels for pixels in self._window)
        if width == 0:
            return
        gpu.state.depth_test_set("LESS_EQUAL")
        gpu.state.depth_mask_set(True)
        gpu.state.blend_set("ALPHA_PREMULT")
        shader = self._programs.shader("composite")
        shader.bind()
        shader.uniform_float(
            "target",
            (
                left / camera.width * 2 - 1,
                bottom / camera.height * 2 - 1,
                width / camera.width * 2,
                height / camera.height * 2,
            ),
        )
        p = camera.projection
        shader.uniform_float("projection", (p[2, 2], p[2, 3], float(camera.orthographic), float(self._encodes)))
        corner = gpu.state.viewport_get()[:2]
        shader.uniform_float("origin", (left + corner[0], bottom + corner[1], float(self._step), 0.0))
        shader.uniform_float("background", (*background[:3], 0.0))
        shader.uniform_sampler("colors", self._color)
        shader.uniform_sampler("depths", self._depth)
        shader.uniform_sampler("mesh_depths", self._mesh_distance)
        rectangle = self._programs.batch("composite")
        if shaders.depth_in_vertex_shader():
            rectangle.draw_instanced(shader, instance_count=self._size[0] * self._size[1])
        else:
            rectangle.draw(shader)
        gpu.state.blend_set("NONE")
        gpu.state.depth_mask_set(False)
        gpu.state.depth_test_set("NONE")

    def _draw_meshes(self, meshes: Sequence[MeshSurface], view: np.ndarray, camera: ViewCamera) -> None:
        """Draws the depths of the rigs' meshes in metres, FAR where there is no mesh. `composite` moves a pixel's
        splats in front of this depth, so that the mesh that Blender drew does not hide them. `camera` has this
        framebuffer's pixels.
        """
        left, bottom, _, _ = self._window
        # From the clip space of the whole view to that of the part that this framebuffer covers.
        part = np.eye(4)
        part[0, 0], part[1, 1] = camera.width / self._size[0], camera.height / self._size[1]
        part[0, 3] = part[0, 0] - 1 - 2 * left / self._size[0]
        part[1, 3] = part[1, 1] - 1 - 2 * bottom / self._size[1]
        with self._mesh_frame.bind():
            self._mesh_distance.clear(format="FLOAT", value=(FAR,))
            self._mesh_depth.clear(format="FLOAT", value=(1.0,))
            gpu.state.viewport_set(0, 0, *self._size)
            gpu.state.depth_test_set("LESS_EQUAL")
            gpu.state.depth_mask_set(True)
            gpu.state.blend_set("NONE")
            shader = self._programs.shader("mesh")
            shader.bind()
            for mesh in meshes:
                model_view = view @ mesh.world
                shader.uniform_float("model_view_projection", Matrix((part @ camera.projection @ model_view).tolist()))
                shader.uniform_float("axis", tuple(-model_view[2]))
                mesh.surface.draw(shader)
            gpu.state.depth_mask_set(False)
            gpu.state.depth_test_set("NONE")

    def _allocate(self, width: int, height: int) -> None:
        """Creates the two framebuffers again if their size in pixels has changed: blended colours and depths of the
        splats, and depths of the meshes.
        """
        if self._size == (width, height):
            return
        self._size = width, height
        self._color = gpu.types.GPUTexture(self._size, format=self._color_format)
        self._depth = gpu.types.GPUTexture(self._size, format="R32F")
        self._frame = gpu.types.GPUFrameBuffer(color_slots=(self._color, self._depth))
        self._mesh_distance = gpu.types.GPUTexture(self._size, format="R32F")
        self._mesh_depth = gpu.types.GPUTexture(self._size, format="DEPTH_COMPONENT32F")
        self._mesh_frame = gpu.types.GPUFrameBuffer(depth_slot=self._mesh_depth, color_slots=(self._mesh_distance,))

    def _sort(self, splats: SplatTexture, forward: np.ndarray) -> None:
        """Uploads the drawing order of the splats, if they or the view's axis `forward` (3,) have changed."""
        if self._sorted is not None and self._sorted[0] == splats.serial and np.array_equal(self._sorted[1], forward):
            return
        self._sorted = splats.serial, forward.copy()
        self._order = _texture(back_to_front(splats.packed.means, forward).astype(np.float32), TEXTURE_WIDTH, "R32F")


def _window(packed: PackedSplats, view: np.ndarray, camera: ViewCamera) -> tuple[int, int, int, int]:
    """Left, bottom, width and height, in the camera's pixels, of the part of the view that the splats may cover; all
    zero if they are not visible. `view` (4, 4) maps positions relative to `packed.origin` to the view. Width and height
    are rounded up to multiples of BLOCK, so that the part may extend beyond the view.
    """
    corners = _corners(packed) @ view[:3, :3].T + view[:3, 3]
    fx, fy, cx, cy = camera.intrinsics()
    low, high = np.zeros(2), np.array((camera.width, camera.height), np.float64)
    depths = -corners[:, 2]
    if not camera.orthographic and depths.max() < NEAR:
        return 0, 0, 0, 0
    if camera.orthographic or depths.min() > NEAR:
        inverse_depth = 1.0 if camera.orthographic else 1 / depths[:, None]
        pixels = corners[:, :2] * inverse_depth * (fx, fy) + (cx, cy)
        low, high = np.maximum(low, pixels.min(0) - 3), np.minimum(high, pixels.max(0) + 3)
    if (high <= low).any():
        return 0, 0, 0, 0
    left, bottom = (int(edge) for edge in low)
    width, height = (-(-int(np.ceil(side)) // BLOCK) * BLOCK for side in (high[0] - left, high[1] - bottom))
    return left, bottom, width, height


def _corners(packed: PackedSplats) -> np.ndarray:
    """(8, 3) corners of the box around the splats, relative to `packed.origin`."""
    return np.array(list(itertools.product(*zip(packed.box_min, packed.box_max, strict=True))), np.float64)


def _texture(values: np.ndarray, row: int, kind: str) -> gpu.types.GPUTexture:
    """A texture of TEXTURE_WIDTH texels per row with the floats of `values` (N,), padded with zeros to whole rows.
    `kind` is the texture's GPU format, and `row` the floats in a row: TEXTURE_WIDTH times the channels of the format.
    """
    height = max(1, -(-len(values) // row))
    filled = np.zeros(height * row, np.float32)
    filled[: len(values)] = values
    return gpu.types.GPUTexture(
        (TEXTURE_WIDTH, height), format=kind, data=gpu.types.Buffer("FLOAT", len(filled), filled)
    )


def _values(texture: gpu.types.GPUTexture, shape: tuple[int, ...]) -> np.ndarray:
    """The floats of a texture, bottom row first."""
    buffer = texture.read()
    # numpy misreads a buffer of several dimensions.
    buffer.dimensions = int(np.prod(shape))
    return np.array(buffer, np.float32).reshape(shape)


def release() -> None:
    """Frees the shared shaders and batches."""
    shared_shaders.release()
