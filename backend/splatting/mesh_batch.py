"""`rasterize_meshes`: the common interface of all rasterisers of meshes, for batches of PyTorch tensors on any device.

The implementations are numba on the CPU (`mesh.py`), NVIDIA Warp (`mesh_warp.py`), and PyTorch3D where a user has it
(`mesh_pytorch3d.py`). All have the conventions of `mesh.py` and the same results: the triangles are equal except where
two of them are equally near within the rounding error, barycentric coordinates agree within 1e-5 and depths within
1e-6 of their value. Results have no gradients. For one image of NumPy arrays there is `mesh.rasterize_mesh`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import EffigyError
from .mesh import MeshRaster, draw_into
from .threads import share

MeshBackend = Literal["auto", "cpu", "warp", "pytorch3d"]

_failed: dict[str, str] = {}
"""Implementations for GPUs that failed in this process, and why. `auto` does not try them again."""


@dataclass(frozen=True)
class MeshRasters:
    """B rasters, as tensors on the device of the vertices; the fields are those of `mesh.MeshRaster`."""

    face_index: Tensor
    """(B, H, W) int32: index into `faces`; -1 where the pixel sees no triangle."""
    barycentric: Tensor
    """(B, H, W, 3) float32: perspective-correct coordinates in that triangle; zeros where there is none."""
    depth: Tensor
    """(B, H, W) float32: distance along the camera axis, metres; infinity where there is none."""

    @property
    def covered(self) -> Tensor:
        """(B, H, W) bool."""
        return self.face_index >= 0

    def showing(self, chosen: Tensor) -> Tensor:
        """(B, H, W) bool: the pixels that see one of the triangles `chosen` (F,) bool."""
        return chosen[self.face_index.clamp_min(0).long()] & self.covered


def rasterize_meshes(
    vertices_camera: Tensor,
    faces: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    *,
    front_only: bool = False,
    backend: MeshBackend = "auto",
) -> MeshRasters:
    """The nearest triangle of each pixel of B images of one mesh topology.

    Args:
        vertices_camera: (B, V, 3) metres, in the space of each image's camera.
        faces: (F, 3) integers, vertex indices of the triangles; an index that no vertex has is an error of the caller,
            which is found on a CPU only.
        intrinsics: (B, 3, 3), or (3, 3) for all images, pixels.
        width: of the images, pixels.
        height: of the images, pixels.
        front_only: skips triangles whose corners are clockwise in the image, as `mesh.nearest_faces` does.
        backend: "cpu" (numba), "warp", "pytorch3d", or "auto": numba for tensors on the CPU, and on a GPU the first of
            Warp, PyTorch3D and numba that works.

    Raises:
        EffigyError: if shapes do not fit together, or if the requested implementation is not available.

    """
    if vertices_camera.ndim != 3 or vertices_camera.shape[-1] != 3 or faces.ndim != 2 or faces.shape[-1] != 3:
        shapes = f"{tuple(vertices_camera.shape)} and {tuple(faces.shape)}"
        raise EffigyError(f"Meshes need vertices (B, V, 3) and triangles (F, 3), not {shapes}.")
    images, device = len(vertices_camera), vertices_camera.device
    if tuple(intrinsics.shape) not in ((3, 3), (images, 3, 3)):
        raise EffigyError(f"{images} meshes need intrinsics (3, 3) or ({images}, 3, 3), not {tuple(intrinsics.shape)}.")
    if width < 1 or height < 1:
        raise EffigyError(f"An image of {width} x {height} pixels cannot be drawn.")
    vertices = vertices_camera.detach().to(torch.float64).contiguous()
    triangles = faces.to(device, torch.int32).contiguous()
    lenses = intrinsics.detach().to(device, torch.float64).expand(images, 3, 3).contiguous()
    if device.type == "cpu" and len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < vertices.shape[1]:
        raise EffigyError(f"A triangle names a vertex that the mesh of {vertices.shape[1]} vertices does not have.")
    implementation = _implementation(backend, device)
    if not len(triangles):
        return _empty(images, height, width, device)
    return MeshRasters(*implementation(vertices, triangles, lenses, width, height, front_only))


_Draw = Callable[[Tensor, Tensor, Tensor, int, int, bool], tuple[Tensor, Tensor, Tensor]]


def why_unavailable(backend: MeshBackend) -> str | None:
    """A message that says why an implementation cannot be used on this machine, or None if it can."""
    if backend == "warp":
        try:
            from . import mesh_warp  # noqa: F401
        except (EffigyError, ImportError, OSError, RuntimeError) as error:
            return f"NVIDIA Warp does not start: {error}"
    if backend == "pytorch3d":
        from .mesh_pytorch3d import why_no_pytorch3d

        return why_no_pytorch3d()
    return None


def _implementation(backend: MeshBackend, device: torch.device) -> _Draw:
    if backend == "auto":
        return _on_cpu if device.type == "cpu" else _on_gpu
    if backend == "cpu":
        return _on_cpu
    if backend not in ("warp", "pytorch3d"):
        raise EffigyError(f"There is no mesh rasteriser '{backend}'. Choose auto, cpu, warp or pytorch3d.")
    if reason := why_unavailable(backend):
        raise EffigyError(f"{reason} Rasterise with backend 'cpu' instead.")
    if backend == "warp":
        from .mesh_warp import rasterize_meshes_warp

        return rasterize_meshes_warp
    from .mesh_pytorch3d import rasterize_meshes_pytorch3d

    return rasterize_meshes_pytorch3d


def _empty(images: int, height: int, width: int, device: torch.device) -> MeshRasters:
    return MeshRasters(
        torch.full((images, height, width), -1, dtype=torch.int32, device=device),
        torch.zeros(images, height, width, 3, device=device),
        torch.full((images, height, width), torch.inf, device=device),
    )


def _on_gpu(
    vertices: Tensor, faces: Tensor, intrinsics: Tensor, width: int, height: int, front_only: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The first implementation that works, so that a kernel that cannot be built does not end a training."""
    order: tuple[MeshBackend, ...] = ("warp", "pytorch3d")
    for backend in order:
        if backend in _failed:
            continue
        try:
            return _implementation(backend, vertices.device)(vertices, faces, intrinsics, width, height, front_only)
        except (EffigyError, RuntimeError) as error:
            _failed[backend] = str(error)
            logging.getLogger(__name__).info("Meshes are not rasterised by %s: %s", backend, error)
    return _on_cpu(vertices, faces, intrinsics, width, height, front_only)


def _on_cpu(
    vertices: Tensor, faces: Tensor, intrinsics: Tensor, width: int, height: int, front_only: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """numba, an image to a thread. Tensors on a GPU are copied to the CPU, and the results back."""
    images = len(vertices)
    face_index = torch.empty(images, height, width, dtype=torch.int32)
    barycentric = torch.empty(images, height, width, 3)
    depth = torch.empty(images, height, width)
    positions, triangles, lenses = (tensor.cpu().numpy() for tensor in (vertices, faces, intrinsics))

    rasters = face_index.numpy(), barycentric.numpy(), depth.numpy()

    def draw_image(image: int, _images: int) -> None:
        raster = MeshRaster(*(array[image] for array in rasters))
        draw_into(raster, positions[image], triangles, lenses[image], front_only)

    share(draw_image, parts=images)
    return face_index.to(vertices.device), barycentric.to(vertices.device), depth.to(vertices.device)
