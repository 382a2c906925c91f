"""The mesh rasteriser against analytic ray casting."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import EffigyError
from backend.splatting.mesh import interpolate, nearest_faces, rasterize_mesh

INTRINSICS = np.array([[90.0, 0, 31.5], [0, 95.0, 24.0], [0, 0, 1]])
WIDTH, HEIGHT = 64, 48


def ray_cast(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest hit of every pixel's ray with every triangle, by solving for (barycentric, distance) directly."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(INTRINSICS).T
    depth = np.full((HEIGHT, WIDTH), np.inf)
    index = np.full((HEIGHT, WIDTH), -1)
    barycentric = np.zeros((HEIGHT, WIDTH, 3))
    for f, face in enumerate(faces):
        weights = rays @ np.linalg.inv(vertices[face])  # ray = weights @ corners, up to the hit's depth
        inverse = weights.sum(-1)
        hit = (weights >= 0).all(-1) & (inverse > 0) & (1 / np.where(inverse > 0, inverse, 1) < depth)
        depth[hit] = 1 / inverse[hit]
        index[hit] = f
        barycentric[hit] = weights[hit] / inverse[hit, None]
    return index, barycentric, depth


def test_pixels_see_the_triangle_that_their_ray_hits_first():
    random = np.random.default_rng(3)
    centres = random.uniform([-0.5, -0.4, 1.2], [0.5, 0.4, 3.0], (60, 1, 3))
    vertices = (centres + random.normal(0, 0.15, (60, 3, 3))).reshape(-1, 3)
    faces = np.arange(180).reshape(60, 3)
    index, barycentric, depth = ray_cast(vertices, faces)
    raster = rasterize_mesh(vertices, faces, INTRINSICS, WIDTH, HEIGHT)
    assert (index >= 0).mean() > 0.3
    # Two triangles may meet a ray at the same depth to the last bit; nowhere else may they differ.
    assert (raster.face_index == index).mean() > 0.999
    same = (raster.face_index == index) & (index >= 0)
    np.testing.assert_allclose(raster.barycentric[same], barycentric[same], atol=1e-5)
    np.testing.assert_allclose(raster.depth[same], depth[same], rtol=1e-5)
    assert np.isinf(raster.depth[~raster.covered]).all()


def test_interpolated_positions_project_back_onto_their_pixel_centres():
    vertices = np.array([[-0.4, -0.3, 1.0], [0.6, -0.3, 3.0], [-0.3, 0.5, 1.5]])
    faces = np.array([[0, 1, 2]])
    raster = rasterize_mesh(vertices, faces, INTRINSICS, WIDTH, HEIGHT)
    points = interpolate(raster, faces, vertices)[raster.covered]
    pixels = points @ INTRINSICS.T
    y, x = np.nonzero(raster.covered)
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], np.stack([x, y], -1) + 0.5, atol=1e-3)


def test_a_closed_surface_has_no_cracks_between_its_triangles():
    steps = 40
    grid = np.arange((steps + 1) ** 2).reshape(steps + 1, steps + 1)
    y, x = np.mgrid[: steps + 1, : steps + 1] / steps - 0.5
    vertices = np.stack([2 * x, 2 * y, 1.5 + 0.2 * np.sin(9 * x) * np.cos(7 * y)], -1).reshape(-1, 3)
    quads = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], -1).reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    raster = rasterize_mesh(vertices, faces, INTRINSICS, WIDTH, HEIGHT)
    assert raster.covered[4:-4, 4:-4].all()


def test_what_lies_behind_the_camera_or_far_outside_is_not_drawn():
    vertices = np.array([[-1, -1, -2.0], [1, -1, -2.0], [0, 1, -2.0], [1e12, 0, 1], [1e12, 1, 1], [2e12, 0, 1]])
    raster = rasterize_mesh(vertices, np.array([[0, 1, 2], [3, 4, 5]]), INTRINSICS, WIDTH, HEIGHT)
    assert not raster.covered.any()


def test_a_triangle_naming_a_missing_vertex_is_refused():
    with pytest.raises(EffigyError, match="does not have"):
        rasterize_mesh(np.zeros((3, 3)), np.array([[0, 1, 3]]), INTRINSICS, WIDTH, HEIGHT)


def test_the_nearest_triangle_alone_is_the_raster_s_and_inner_sides_can_be_left_out():
    outwards = np.array([[0, 2, 1], [0, 3, 2]])
    near = np.array([[-0.3, -0.2, 1.0], [0.3, -0.2, 1.0], [0.3, 0.2, 1.0], [-0.3, 0.2, 1.0]])
    far = near * [2, 2, 2]
    # The far square shows its outer side, the near one its inner side.
    vertices, faces = np.concatenate([near, far]), np.concatenate([outwards[:, ::-1], outwards + 4])
    both = rasterize_mesh(vertices, faces, INTRINSICS, WIDTH, HEIGHT).face_index
    assert set(np.unique(both)) == {-1, 0, 1}
    assert (nearest_faces(vertices, faces, INTRINSICS, WIDTH, HEIGHT) == both).all()
    outer = nearest_faces(vertices, faces, INTRINSICS, WIDTH, HEIGHT, front_only=True)
    assert set(np.unique(outer)) == {-1, 2, 3} and ((outer < 0) == (both < 0)).all()
