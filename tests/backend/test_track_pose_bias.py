"""The detector's bias is subtracted for any head pose and focal length, and measured without learning anybody's
face.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from assets.derive.landmark_bias import Measurements, fit_bias, landmark_basis, mirrored_points
from backend.head.formats import load_head
from backend.tracking.detector.pose_bias import FEATURES, bias_of_poses, view_features, without_bias
from bench.known_person import IDENTITIES


def _poses(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    turn = np.radians(random.uniform((-15, -50, -20), (15, 50, 20), (frames, 3)))
    rotation = np.diag((1.0, -1.0, -1.0)) @ Rotation.from_rotvec(turn).as_matrix()
    return rotation, random.normal(0, 0.03, (frames, 3)) + (0, 0, 0.8)


def test_points_are_freed_of_what_was_added_to_them_and_keep_their_depth() -> None:
    rotation, translation = _poses(5)
    points = np.random.default_rng(1).uniform(100, 400, (5, 478, 3)).astype(np.float32)
    seen = points.copy()
    seen[..., :2] += bias_of_poses(rotation, translation, 1100.0)
    assert np.abs(seen - points).max() > 1
    assert np.allclose(without_bias(seen, rotation, translation, 1100.0), points, atol=1e-3)


def test_a_bias_is_as_large_on_the_face_for_every_lens_distance_and_roll() -> None:
    rotation, translation = _poses(4)
    once = bias_of_poses(rotation, translation, 1000.0)
    assert np.allclose(bias_of_poses(rotation, 2 * translation, 2000.0), once, atol=1e-4)
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    rolled = bias_of_poses(quarter @ rotation, translation @ quarter.T, 1000.0)
    assert np.allclose(rolled, once @ quarter[:2, :2].T, atol=1e-3)


def test_beyond_the_measured_turns_the_bias_grows_no_further() -> None:
    directions = torch.tensor(((0.9, 0.0, 0.44), (1.0, 0.0, 0.0)))
    assert torch.equal(*view_features(directions))


def test_a_bias_common_to_all_people_is_separated_from_the_response_to_each() -> None:
    random = np.random.default_rng(2)
    model = load_head()
    mirror = mirrored_points(model)
    valid = np.flatnonzero(model.landmark_faces >= 0)
    assert np.mean(mirror[mirror[valid]] == valid) > 0.95
    people, each = 120, 8
    directions = random.normal(size=(people * each, 3)) * (0.5, 0.2, 0.1) + (0, 0, 1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # As seen from there with the head upright: across and along.
    across = np.cross((0.0, 1.0, 0.0), directions)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    view = np.stack((across, np.cross(across, directions)), 1)
    person = np.repeat(random.normal(0, 0.6, (people, IDENTITIES)), each, 0)
    face = random.uniform(0, 1, (people * each, len(model.expression_names)))
    causes = np.concatenate((person, face, random.uniform(0, 0.2, (people * each, 1)), np.zeros((people * each, 4))), 1)
    bias = random.normal(0, 0.003, (FEATURES, 478, 2))
    # The bias is the same on both sides of the face.
    signs = np.array((1, -1, 1, 1, -1, 1, -1, 1, -1, 1))[:, None]
    both = np.zeros_like(bias)
    pair = np.unique(np.sort(np.stack((valid, mirror[valid]), 1)[mirror[mirror[valid]] == valid], 1), axis=0)
    for left, right in pair:
        both[:, left] = bias[:, left]
        both[:, right] = bias[:, left] * (-1, 1) * signs
    chosen = [int(left) for left, right in pair if left != right]
    # This detector sees half of every person.
    answers = -0.5 * landmark_basis(model, model.shape_basis[..., :IDENTITIES])
    polynomial = view_features(torch.as_tensor(directions)).numpy()
    biases = np.einsum("fk,klc->flc", polynomial, both)
    of_person = np.einsum("fac,lcs,fs->fla", view, answers, person)
    errors = biases + of_person + np.repeat(random.normal(0, 0.0005, (people, 478, 2)), each, 0)
    errors[:, model.landmark_faces < 0] = np.nan
    found, found_answers = fit_bias(Measurements(errors, directions, view, causes), model)
    found_bias = np.einsum("fk,klc->flc", polynomial, found)
    assert np.sqrt(((found_bias - biases)[:, chosen] ** 2).mean()) < 0.3 * np.sqrt((biases[:, chosen] ** 2).mean())
    explained = found_bias + np.einsum("fac,lcs,fs->fla", view, found_answers, causes)
    assert np.sqrt(((explained - biases - of_person)[:, chosen] ** 2).mean()) < 0.0005
    found_of_person = np.einsum("fac,lcs,fs->fla", view, found_answers[..., :IDENTITIES], person)
    assert np.sqrt(((found_of_person - of_person)[:, chosen] ** 2).mean()) < 0.3 * np.sqrt(
        (of_person[:, chosen] ** 2).mean()
    )
    assert not found_answers[..., -4:].any()


@pytest.mark.parametrize("frames", [1, 3])
def test_frames_without_a_face_stay_without(frames: int) -> None:
    rotation, translation = _poses(frames)
    assert np.isnan(without_bias(np.full((frames, 478, 3), np.nan, np.float32), rotation, translation, 900.0)).all()
