"""The detector's points find their places on real FLAME topology and on the open head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.correspondence.landmark_embedding import embed_landmarks, mirror_landmarks
from backend.head.closest_point import closest_on_mesh
from backend.head.formats import load_head
from backend.head.model import REGION_NAMES, HeadModel

FLAME_EYES = np.arange(3931, 5023)


def flame_identity(path: Path) -> HeadModel:
    """FLAME's surface and identities; its jaw cannot be opened, because the file has no skinning."""
    with np.load(path) as arrays:
        template, faces = arrays["v_template"].astype(np.float32), arrays["faces"].astype(np.int32)
        shape_basis = arrays["shapedirs"].astype(np.float32)
    count = len(template)
    regions = {name: np.zeros(0, np.int32) for name in REGION_NAMES} | {"eyes": FLAME_EYES.astype(np.int32)}
    skinning = np.zeros((count, 5), np.float32)
    skinning[:, 0] = 1
    return HeadModel(
        name="FLAME 2023 Open",
        template=template,
        shape_basis=shape_basis,
        expression_basis=np.zeros((count, 3, 0), np.float32),
        pose_basis=np.zeros((count, 3, 36), np.float32),
        joint_regressor=np.zeros((5, count), np.float32),
        skinning=skinning,
        faces=faces,
        uv=np.zeros((3, 2), np.float32),
        uv_faces=np.zeros_like(faces),
        expression_names=(),
        expression_range=(0.0, 1.0),
        regions=regions,
        landmark_faces=np.full(478, -1, np.int32),
        landmark_barycentric=np.zeros((478, 3), np.float32),
    )


@pytest.fixture(scope="module")
def flame(shared_flame: Path) -> tuple[HeadModel, np.ndarray, np.ndarray]:
    model = flame_identity(shared_flame)
    return model, *embed_landmarks(model, images=30)


def places(model: HeadModel, faces: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    return (model.template[model.faces[faces]] * barycentric[..., None]).sum(-2)


def test_points_lie_where_flames_authors_put_them(flame, shared_flame):
    model, faces, barycentric = flame
    with np.load(shared_flame) as arrays:
        truth = places(model, arrays["lmk_face_idx"], arrays["lmk_b_coords"])
        chosen = arrays["landmark_indices"]
    found = faces[chosen] >= 0
    assert found.mean() > 0.97
    distance = np.linalg.norm(places(model, faces[chosen], barycentric[chosen]) - truth, axis=1)[found]
    assert np.median(distance) < 0.003
    assert np.percentile(distance, 95) < 0.006


def test_irises_lie_on_the_eyeballs_and_nothing_else_does(flame):
    model, faces, _ = flame
    on_eye = np.isin(model.faces[faces], FLAME_EYES).all(1) & (faces >= 0)
    assert on_eye[468:].all()
    assert not on_eye[:468].any()


def test_the_two_halves_of_the_face_mirror_each_other(flame):
    model, faces, barycentric = flame
    found = (faces >= 0) & (faces[mirror_landmarks()] >= 0)
    points = places(model, faces, barycentric)
    asymmetry = np.linalg.norm(points - points[mirror_landmarks()] * [-1, 1, 1], axis=1)[found]
    # The two sides of FLAME's own template differ by 1 to 2 mm in depth, and the points have to lie on it.
    assert np.median(asymmetry) < 0.0015


def test_the_open_head_has_the_points_that_tracking_needs():
    model = load_head()
    valid = model.landmark_faces >= 0
    assert valid.sum() > 420
    points = places(model, model.landmark_faces, model.landmark_barycentric)
    upper_lip, lower_lip, left_eye, right_eye, nose_tip, chin = points[[13, 14, 473, 468, 1, 199]]
    assert valid[[13, 14, 473, 468, 1, 199]].all()
    assert left_eye[0] > 0.02 > -0.02 > right_eye[0]
    assert upper_lip[1] > lower_lip[1] - 0.001
    assert nose_tip[1] > upper_lip[1] > chin[1]
    assert nose_tip[2] > upper_lip[2]
    # Inner edges of the lips are on their own lips: opening the jaw parts them.
    jaw = model.skinning[model.faces[model.landmark_faces[[13, 14]]], 2].mean(1)
    assert jaw[0] < 0.3 < 0.6 < jaw[1]


def test_the_nearest_place_on_triangles_is_found_inside_and_at_edges():
    triangles = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[5, 0, 0], [6, 0, 0], [5, 1, 0]]], float)
    points = np.array([[0.25, 0.25, 1.0], [5.5, -2.0, 0.0], [-1.0, -1.0, 0.0]])
    best, barycentric = closest_on_mesh(points, triangles)
    np.testing.assert_array_equal(best, [0, 1, 0])
    np.testing.assert_allclose(barycentric, [[0.5, 0.25, 0.25], [0.5, 0.5, 0], [1, 0, 0]], atol=1e-6)


def test_no_place_on_the_triangles_is_nearer_than_the_one_that_is_found():
    """Against a fine grid of places on every triangle."""
    random = np.random.default_rng(0)
    triangles, points = random.normal(0, 1, (6, 3, 3)), random.normal(0, 2, (40, 3))
    best, barycentric = closest_on_mesh(points, triangles)
    assert barycentric.min() >= 0
    np.testing.assert_allclose(barycentric.sum(1), 1, atol=1e-6)
    found = np.linalg.norm((triangles[best] * barycentric[..., None]).sum(1) - points, axis=1)
    first, second = np.meshgrid(np.linspace(0, 1, 101), np.linspace(0, 1, 101))
    inside = first + second <= 1
    grid = np.stack((1 - first - second, first, second), -1)[inside]
    places_on = np.einsum("gc,tcd->tgd", grid, triangles).reshape(-1, 3)
    nearest = np.linalg.norm(places_on[None] - points[:, None], axis=-1).min(1)
    assert (found <= nearest + 1e-5).all()
    assert (nearest - found).max() < 0.03
