"""The detector finds a person in the demo clip, its performance is complete, and its ground truth fits its frames."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from assets.derive.appearance import Appearance, paint_head
from assets.derive.demo_clip import SEED, demo_truth, shoulders
from assets.derive.render_person import render_person
from backend.assets import asset_path
from backend.correspondence.landmark_sets import FACE_OVAL
from backend.footage.detector import SCORE_NAMES, FaceDetector
from backend.formats.track import Track, load_track
from backend.head.formats import load_head
from backend.head.forward import Head, landmark_valid, landmarks
from backend.head.model import JAW, NECK, HeadModel
from backend.tracking.after.camera_vertices import camera_vertices

EVERY = 6


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def truth(model: HeadModel) -> Track:
    return load_track(asset_path("demo_truth.npz"), model)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    with av.open(str(asset_path("demo.mp4"))) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_it_is_ten_seconds_at_512_in_under_a_megabyte(images, truth):
    assert asset_path("demo.mp4").stat().st_size < 1_000_000
    assert len(images) == truth.frame_count == 250
    assert {image.shape for image in images} == {(512, 512, 3)}
    assert truth.size == 512
    assert truth.fps == 25


def test_the_detector_finds_one_person_at_the_true_position(images, truth, model):
    vertices = camera_vertices(Head(model), truth, range(truth.frame_count))
    valid = landmark_valid(model)
    valid[FACE_OVAL] = False
    detector = FaceDetector()
    errors, scores = [], []
    for index in range(0, len(images), EVERY):
        faces = detector.detect(images[index])
        assert len(faces) == 1, f"frame {index}"
        points = landmarks(torch.as_tensor(vertices[index : index + 1], dtype=torch.float32), model)[0].numpy()[valid]
        pixels = points @ truth.intrinsics.T
        errors.append(np.median(np.linalg.norm(pixels[:, :2] / pixels[:, 2:] - faces[0].landmarks[valid, :2], axis=1)))
        scores.append(faces[0].scores)
    detector.close()
    assert np.median(errors) < 2.5
    assert np.max(errors) < 8
    seen = dict(zip(SCORE_NAMES, np.ptp(scores, 0), strict=True))
    for name in ("eyeBlinkLeft", "jawOpen", "mouthSmileLeft", "mouthPucker", "browInnerUp"):
        assert seen[name] > 0.3, name


def test_it_turns_nods_talks_and_blinks(truth, model):
    yaw, pitch, _ = Rotation.from_rotvec(truth.rotations[:, NECK]).as_euler("YXZ", degrees=True).T
    assert yaw.min() < -33 < 33 < yaw.max()
    assert np.ptp(pitch) > 12
    assert np.ptp(truth.rotations[:, JAW, 0]) > 0.15
    blinks = truth.expression[:, model.expression_names.index("eyeBlinkLeft")] > 0.8
    assert np.diff(blinks.astype(int)).clip(0).sum() >= 4


def test_the_files_are_reproduced_by_their_derivation(images, truth, model):
    derived = demo_truth(model)
    np.testing.assert_allclose(derived.expression, truth.expression, atol=1e-6)
    np.testing.assert_allclose(derived.rotations, truth.rotations, atol=1e-6)
    index, size = 40, 128
    camera = truth.head_to_camera[index]
    body, body_faces = shoulders(model, truth.identity)
    intrinsics = truth.intrinsics.astype(np.float64) * [[size / 512], [size / 512], [1]]
    vertices = camera_vertices(Head(model), truth, range(index, index + 1))[0]
    smaller = cv2.resize(images[index], (size, size), interpolation=cv2.INTER_AREA).astype(float)
    background = np.full((size, size, 3), 0.45)
    shirt = body @ camera[:3, :3].T + camera[:3, 3], body_faces
    painted = paint_head(model, Appearance(seed=SEED))
    drawn = render_person(painted, vertices, shirt, intrinsics, size, background).astype(float)
    face = np.s_[size * 3 // 8 : size * 5 // 8, size * 3 // 8 : size * 5 // 8]
    assert np.sqrt(np.mean((drawn[face] - smaller[face]) ** 2)) < 9
