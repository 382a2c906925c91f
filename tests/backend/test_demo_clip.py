"""The detector finds a person in the demo clip, its performance is complete, and its ground truth fits its frames."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from assets.derive.clip_scene import scene_arrays
from assets.derive.demo_clip import demo_truth
from assets.derive.speech import SPEECH
from backend.assets import asset_path
from backend.correspondence.landmark_sets import FACE_OVAL
from backend.footage.detector import SCORE_NAMES, FaceDetector
from backend.formats.track import Track, load_track
from backend.head.formats import load_head
from backend.head.forward import Head, landmark_valid, landmarks
from backend.head.model import JAW, NECK, HeadModel
from backend.speech.sound import read_sound
from backend.tracking.after.camera_vertices import camera_vertices

EVERY = 6
PER_FRAME = ("expression", "rotations", "head_to_camera", "residual", "flags")


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


def test_it_is_ten_seconds_at_512_in_under_two_megabytes(images, truth):
    assert asset_path("demo.mp4").stat().st_size < 2_000_000
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
    assert np.median(errors) < 3.0
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


def test_the_truth_is_reproduced_by_its_derivation(truth, model):
    derived = demo_truth(model)
    np.testing.assert_allclose(derived.expression, truth.expression, atol=1e-5)
    np.testing.assert_allclose(derived.rotations, truth.rotations, atol=1e-5)
    np.testing.assert_allclose(derived.identity, truth.identity, atol=1e-6)


def test_the_mouth_opens_with_the_clips_own_sound(truth):
    clip, spoken = (read_sound(path) for path in (asset_path("demo.mp4"), SPEECH / "clip.flac"))
    assert clip.seconds == pytest.approx(10, abs=0.1)
    # The sound of the film is compressed, so the loudness is compared, not the samples.
    times, levels = clip.levels()
    frames = np.arange(truth.frame_count) / 25
    heard, said = (np.interp(frames, times[: len(part)], part) for part in (levels, spoken.levels()[1][: len(times)]))
    assert np.corrcoef(heard, said)[0, 1] > 0.95
    jaw = truth.rotations[:, JAW, 0]
    silent = heard < -55
    assert np.median(jaw[~silent]) > 2 * jaw[silent].mean()


def test_strands_stay_on_the_skin_and_hair_clears_the_face(model, truth):
    arrays = scene_arrays(replace(truth, **{name: getattr(truth, name)[:1] for name in PER_FRAME}))
    tree = KDTree(arrays["rest"])
    for name in ("hair", "brows", "lashes"):
        roots = arrays[name][:, 0]
        assert tree.query(roots)[0].max() < 0.012, name
    irises = arrays["eyes"][0, :, :3, 3]
    assert np.abs(irises[:, 0]).min() > 0.02
    hair = arrays["hair"].reshape(-1, 3)
    brow = arrays["brows"][..., 1].max()
    assert (hair[hair[:, 2] > 0.05][:, 1] > brow).all(), "no hair hangs over the brows"
