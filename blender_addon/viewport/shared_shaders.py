"""The shaders and batches that all views share, created at the first drawing, when there is a GPU context.

A graphics driver, or a backend of Blender that Effigy has not met, may refuse a shader. The refusal is remembered, so
that it is reported once and not at every redraw; `failure` is the sentence that the panel shows, and
`mesh_visibility` then shows the rig's mesh.
"""

# fake-bpy-module 5.0 declares the types of `gpu` without constructors.
# pyright: reportCallIssue=false
from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import gpu
from gpu_extras.batch import batch_for_shader

from ..errors import EffigyError
from . import shaders

_TRIANGLE: Final = ((0.0, 2.0), (-(3**0.5), -1.0), (3**0.5, -1.0))
"""The triangle around a circle of radius 1. One triangle is cheaper than the two of a square, although slightly more of
it lies outside the ellipse."""
_SQUARE: Final = ((0, 0), (1, 0), (0, 1), (1, 1))

_MAKERS: Final[dict[str, Callable[[], gpu.types.GPUShader]]] = {
    "splats": shaders.splat_shader,
    "mesh": shaders.mesh_shader,
    "composite": lambda: shaders.composite_shader(shaders.depth_in_vertex_shader()),
}


@dataclass
class ShaderSet:
    """Built shaders and batches. Viewport and render have a set each: a render draws in a thread of its own, and the
    values of a shader's constants belong to the shader.
    """

    failure: str = ""
    """The sentence for the artist if a shader could not be built, else empty."""
    _shaders: dict[str, gpu.types.GPUShader] = field(default_factory=dict)
    _batches: dict[str, gpu.types.GPUBatch] = field(default_factory=dict)

    def shader(self, name: str) -> gpu.types.GPUShader:
        """The shader `splats`, `mesh` or `composite`, built at the first call.

        Raises an `EffigyError` with the sentence of `failure` if it, or any other, could not be built. The compiler's
        own message is printed once.
        """
        if self.failure:
            raise EffigyError(self.failure)
        if name not in self._shaders:
            try:
                self._shaders[name] = _MAKERS[name]()
            except Exception:
                traceback.print_exc()
                self.failure = (
                    f"Blender could not build the shader “{name}” for {gpu.platform.renderer_get()} "
                    f"({gpu.platform.backend_type_get()}), so the mesh is shown instead of the splats: update the "
                    "graphics driver or Blender, or choose another backend under Preferences ▸ System."
                )
                raise EffigyError(self.failure) from None
        return self._shaders[name]

    def batch(self, name: str) -> gpu.types.GPUBatch:
        """What the shader of this name draws: one triangle per splat, or a rectangle for the composite."""
        if name not in self._batches:
            kind, corners = ("TRI_STRIP", _SQUARE) if name == "composite" else ("TRIS", _TRIANGLE)
            self._batches[name] = batch_for_shader(self.shader(name), kind, {"corner": corners})
        return self._batches[name]

    def release(self) -> None:
        """Frees the shaders and batches, and forgets a failure, so that the next drawing tries again."""
        self._shaders.clear()
        self._batches.clear()
        self.failure = ""


viewport: Final = ShaderSet()
"""The set of all 3D Views."""


def build() -> bool:
    """Builds all shaders of the viewport that are not built yet. Returns False if one cannot be built; `failure` then
    says why. Needs a GPU context.
    """
    try:
        for name in _MAKERS:
            viewport.shader(name)
    except EffigyError:
        return False
    return True


def failure() -> str:
    """`ShaderSet.failure` of the viewport."""
    return viewport.failure


def release() -> None:
    """Frees the viewport's shaders and batches."""
    viewport.release()
