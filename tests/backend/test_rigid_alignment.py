"""Closed-form rotations and similarity transforms between corresponding points."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.head.rigid_alignment import fit_rotation, fit_similarity, nearest_rotation

RANDOM = np.random.default_rng(4)


def test_a_similarity_transform_is_recovered_from_weighted_points() -> None:
    source = RANDOM.normal(size=(6, 20, 3))
    rotation, scale, translation = (
        Rotation.random(6, rng=RANDOM).as_matrix(),
        RANDOM.uniform(0.5, 2, 6),
        RANDOM.normal(size=(6, 3)),
    )
    target = scale[:, None, None] * source @ rotation.transpose(0, 2, 1) + translation[:, None]
    weights = RANDOM.uniform(0.1, 1, (6, 20))
    target[:, 0], weights[:, 0] = 100, 0
    found = fit_similarity(source, target, weights)
    assert found.scale == pytest.approx(scale)
    assert found.rotation == pytest.approx(rotation)
    assert found.translation == pytest.approx(translation)


def test_a_rigid_transform_keeps_the_size_of_the_points() -> None:
    source = RANDOM.normal(size=(20, 3))
    found = fit_similarity(source, 3 * source + 1, with_scale=False)
    assert found.scale == 1
    assert found.rotation == pytest.approx(np.eye(3))
    assert found.translation == pytest.approx(3 * source.mean(0) + 1 - source.mean(0))


def test_a_rotation_about_the_origin_agrees_with_scipy() -> None:
    source, target, weights = RANDOM.normal(size=(20, 3)), RANDOM.normal(size=(20, 3)), RANDOM.uniform(0.1, 1, 20)
    expected = Rotation.align_vectors(target, source, weights)[0].as_matrix()
    assert fit_rotation(source, target, weights) == pytest.approx(expected, abs=1e-9)


def test_a_mirrored_point_set_gives_a_rotation_and_not_a_reflection() -> None:
    source = RANDOM.normal(size=(20, 3))
    mirrored = source * np.array((-1, 1, 1))
    for rotation in (
        fit_rotation(source, mirrored),
        fit_similarity(source, mirrored).rotation,
        nearest_rotation(np.diag((1, 1, -1))),
    ):
        assert np.linalg.det(rotation) == pytest.approx(1)
