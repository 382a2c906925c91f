"""Mesh rasterisation by PyTorch3D, for users who have it; it is no dependency of Effigy.

PyTorch3D's `rasterize_meshes` takes positions in its normalised device coordinates (NDC): +X left and +Y up, the
shorter side of the image from -1 to 1, the longer side in proportion; depth is in any unit, here metres. Its
`pix_to_face` counts the triangles of all images of a batch one after the other. It takes float32, whose rounding in NDC
changes the barycentric coordinates of small triangles in their fifth digit. Therefore only the triangles are taken from
PyTorch3D, and coordinates and depth are computed from them in float64.

Sources: "Cameras" and "Getting started with the renderer" in PyTorch3D's documentation; the docstring of
`pytorch3d.renderer.mesh.rasterize_meshes` (version 0.7).
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from .mesh import NEAR


def why_no_pytorch3d() -> str | None:
    """A message that says why PyTorch3D cannot be used, or None if it can."""
    if importlib.util.find_spec("pytorch3d") is None:
        return "PyTorch3D is not installed; docs/architecture.md says how it is built."
    try:
        from pytorch3d import _C  # noqa: F401  # pyright: ignore[reportMissingImports]  (optional)
    except (ImportError, OSError) as error:
        return f"PyTorch3D is installed but its kernels do not load: {error}"
    return None


def rasterize_meshes_pytorch3d(
    vertices: Tensor, faces: Tensor, intrinsics: Tensor, width: int, height: int, front_only: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Face indices (B, H, W), barycentric coordinates (B, H, W, 3) and depths (B, H, W) of `vertices` (B, V, 3)
    float64, `faces` (F, 3) int32 and `intrinsics` (B, 3, 3) float64, all on one device.
    """
    from pytorch3d.renderer.mesh.rasterize_meshes import (  # pyright: ignore[reportMissingImports]  (optional)
        rasterize_meshes,
    )
    from pytorch3d.structures import Meshes  # pyright: ignore[reportMissingImports]  (optional)

    corner_index = faces.long()
    pixels = _pixels(vertices, intrinsics)
    corners, depths = pixels[:, corner_index], vertices[..., 2][:, corner_index]
    area = _edge(corners[..., 1, :], corners[..., 2, :], corners[..., 0, :])
    drawn = (depths > NEAR).all(-1) & ((area < 0) if front_only else (area != 0)) & corners.isfinite().all((-1, -2))
    # A list per image, because images may skip different triangles; `kept` maps their order to `faces`.
    kept = [row.nonzero()[:, 0] for row in drawn]
    side = min(width, height)
    size = torch.tensor((width, height), dtype=torch.float64, device=vertices.device)
    ndc = torch.cat(((size - 2 * pixels) / side, vertices[..., 2:]), -1).float().nan_to_num(0.0, 0.0, 0.0)
    meshes = Meshes(list(ndc), [corner_index[row] for row in kept])
    packed = rasterize_meshes(
        meshes,
        (height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        # All of a mesh's triangles may lie in one bin: a head that fills little of the image.
        max_faces_per_bin=max(10_000, len(faces)),
        perspective_correct=True,
        cull_backfaces=False,
        cull_to_frustum=False,
    )[0][..., 0]
    face_index = torch.cat((*kept, corner_index.new_full((1,), -1)))[packed]
    covered = face_index >= 0
    barycentric, inverse = _landing(pixels, vertices, corner_index, face_index)
    barycentric = torch.where(covered[..., None], barycentric, 0.0)
    depth = torch.where(covered, 1 / inverse, torch.inf)
    return face_index.int(), barycentric.float(), depth.float()


def _pixels(vertices: Tensor, intrinsics: Tensor) -> Tensor:
    """(B, V, 2): the vertices in the image. Vertices nearer than NEAR, whose triangles are skipped, get any values."""
    slopes = vertices[..., :2] / vertices[..., 2:].clamp_min(NEAR)
    lens = intrinsics[:, None]
    x = lens[..., 0, 0] * slopes[..., 0] + lens[..., 0, 1] * slopes[..., 1] + lens[..., 0, 2]
    return torch.stack((x, lens[..., 1, 1] * slopes[..., 1] + lens[..., 1, 2]), -1)


def _edge(a: Tensor, b: Tensor, point: Tensor) -> Tensor:
    """Twice the signed area of the triangles a, b, point (..., 2)."""
    first, second = a - point, b - point
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


def _landing(pixels: Tensor, vertices: Tensor, corner_index: Tensor, face_index: Tensor) -> tuple[Tensor, Tensor]:
    """Perspective-correct coordinates (B, H, W, 3) and inverse depth (B, H, W) of each pixel in its triangle."""
    images, height, width = face_index.shape
    corners = corner_index[face_index.clamp_min(0).flatten(1)]
    image = torch.arange(images, device=pixels.device)[:, None, None]
    places, depths = pixels[image, corners], vertices[..., 2][image, corners]
    y, x = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64, device=pixels.device) + 0.5 for size in (height, width)),
        indexing="ij",
    )
    centre = torch.stack((x, y), -1).flatten(0, 1)
    a, b, c = places.unbind(-2)
    weights = torch.stack((_edge(b, c, centre), _edge(c, a, centre), _edge(a, b, centre)), -1) / depths
    area = _edge(b, c, a)
    total = weights.sum(-1)
    shape = (images, height, width)
    return (weights / total[..., None]).unflatten(1, shape[1:]), (total / area).unflatten(1, shape[1:])
