"""A clip in, a track out: is what it says true, does it admit what it does not know, and who had a say in it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.errors import Cancelled, EffigyError
from backend.formats.capture import FrameFlag
from backend.formats.track import Track, load_track, save_track
from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.progress import Progress
from backend.tracking.after.residuals import landmark_error, project_landmarks
from backend.tracking.pipeline import track_capture, track_captures
from bench.known_clip import SyntheticClip, make_clip, vertex_and_rotation_errors

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def clip(model: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> SyntheticClip:
    return make_clip(model, tmp_path_factory.mktemp("clip") / "known.capture", frames=45)


@pytest.fixture(scope="module")
def track(clip: SyntheticClip, model: HeadModel) -> Track:
    return track_capture(clip.capture, model)


def test_a_known_face_is_recovered(track: Track, clip: SyntheticClip, model: HeadModel) -> None:
    distances, turns = vertex_and_rotation_errors(track, clip, model)
    assert np.median(distances) < 0.0025
    # A detector that answers to half a face leaves the other half to what is believed, and a face believed flatter
    # nods.
    assert np.median(turns) < 1.75
    # The detector's points lie beside their places where the head is turned, so the truth itself does not meet them.
    assert np.nanmedian(track.residual) < 1.1 * np.median(landmark_error(_true_track(track, clip), clip.capture, model))
    assert not track.flags.any()


def test_lids_gaze_and_jaw_follow(track: Track, clip: SyntheticClip, model: HeadModel) -> None:
    blink = model.expression_names.index("eyeBlinkLeft")
    closed = clip.expression[:, blink] > 0.9
    assert track.expression[closed, blink].min() > 0.75
    assert track.expression[clip.expression[:, blink] < 0.05, blink].max() < 0.3
    assert np.rad2deg(np.abs(track.rotations[:, 2, 0] - clip.rotations[:, 2, 0]).mean()) < 2.5
    seen = clip.expression[:, blink] < 0.2
    gaze = np.rad2deg(np.abs(track.rotations[:, 3:, 1] - clip.rotations[:, 3:, 1])[seen])
    assert np.median(gaze) < 4


def test_coefficients_stay_on_their_sliders_and_the_jaw_on_its_bone(track: Track, model: HeadModel) -> None:
    brows = np.array([name.startswith("brow") for name in model.expression_names])
    assert track.expression.min() >= 0
    assert track.expression[:, ~brows].max() <= 1
    assert track.expression[:, brows].max() <= 1.6
    for name in ("jawOpen", "jawLeft", "jawRight"):
        assert not track.expression[:, model.expression_names.index(name)].any()
    assert not track.rotations[:, 0].any()


def test_smoothing_leaves_less_jitter_than_the_landmarks_had(
    track: Track, clip: SyntheticClip, model: HeadModel
) -> None:
    def trembling(points: np.ndarray) -> float:
        return float(np.sqrt(np.nanmean(np.diff(points - clean, 2, axis=0) ** 2)))

    clean = project_landmarks(_true_track(track, clip), model)
    assert trembling(project_landmarks(track, model)) < 0.3 * trembling(clip.capture.landmarks[..., :2])


def test_a_head_that_shakes_is_not_smoothed_still(model: HeadModel, tmp_path: Path) -> None:
    shaken = make_clip(model, tmp_path / "shaken.capture", frames=45, max_yaw=15.0, yaw_cycles=4.5)
    _, turns = vertex_and_rotation_errors(track_capture(shaken.capture, model), shaken, model)
    assert np.median(turns) < 2.3


def _true_track(track: Track, clip: SyntheticClip) -> Track:
    return replace(
        track,
        identity=clip.identity,
        expression=clip.expression,
        rotations=clip.rotations,
        head_to_camera=clip.head_to_camera,
    )


def test_held_out_frames_have_no_say_in_the_person_nor_in_training_frames(
    clip: SyntheticClip, model: HeadModel, track: Track
) -> None:
    capture = clip.capture
    seen = capture.landmarks.copy()
    # Also with a gap before them, which must not lean on them.
    seen[capture.training_count - 2 : capture.training_count] = np.nan
    before = track_capture(replace(capture, landmarks=seen), model)
    seen[capture.training_count :] = 256 + 1.3 * (seen[capture.training_count :] - 256)
    other = track_capture(replace(capture, landmarks=seen), model)
    training = slice(capture.training_count)
    assert np.array_equal(other.identity, before.identity)
    assert np.array_equal(other.intrinsics, before.intrinsics)
    for name in ("expression", "rotations", "head_to_camera", "residual", "sigma"):
        assert np.array_equal(getattr(other, name)[training], getattr(before, name)[training], equal_nan=True)
    assert not np.array_equal(other.expression[capture.training_count :], before.expression[capture.training_count :])


def test_lost_and_unexplained_frames_are_flagged_and_bridged(
    clip: SyntheticClip, model: HeadModel, track: Track
) -> None:
    seen, flags = clip.capture.landmarks.copy(), clip.capture.flags.copy()
    seen[20:24], flags[20:24] = np.nan, FrameFlag.NO_FACE
    seen[35] += np.random.default_rng(0).normal(0, 60, seen[35].shape)
    found = track_capture(replace(clip.capture, landmarks=seen, flags=flags), model)
    assert (found.flags[20:24] & FrameFlag.NO_FACE).all()
    assert np.isnan(found.residual[20:24]).all()
    assert found.flags[35] & FrameFlag.TRACK_UNSURE
    assert (found.flags != 0).sum() == 5
    place = found.head_to_camera[20:24, :3, 3]
    assert np.isfinite(place).all()
    assert np.linalg.norm(place - track.head_to_camera[20:24, :3, 3], axis=1).max() < 0.02


def test_what_is_not_seen_is_known_less_and_said_so(clip: SyntheticClip, model: HeadModel, track: Track) -> None:
    turn = Rotation.from_matrix(track.head_to_camera[:, :3, :3]) * Rotation.from_rotvec(track.rotations[:, 1])
    truth = Rotation.from_matrix(clip.head_to_camera[:, :3, :3]) * Rotation.from_rotvec(clip.rotations[:, 1])
    assert (np.abs((turn * truth.inv()).as_rotvec()) <= 2 * track.sigma[:, -6:-3]).mean() > 0.9
    assert np.rad2deg(np.median(track.sigma[:, -6:-3])) < 3
    seen, flags = clip.capture.landmarks.copy(), clip.capture.flags.copy()
    seen[10:24], flags[10:24] = np.nan, FrameFlag.NO_FACE
    gap = track_capture(replace(clip.capture, landmarks=seen, flags=flags), model).sigma
    # The farther from what was seen, the less is known.
    assert (gap[17, -6:-1] > 1.5 * track.sigma[17, -6:-1]).all()
    assert (gap[17, -6:-1] > gap[10, -6:-1]).all()
    assert not gap[:, model.expression_names.index("jawOpen")].any()


def test_clips_of_one_person_have_one_identity_and_a_lens_each(
    clip: SyntheticClip, model: HeadModel, track: Track, tmp_path: Path
) -> None:
    other = make_clip(model, tmp_path / "other.capture", frames=20, max_yaw=40.0, focal=800.0)
    guess = clip.capture.intrinsics.copy()
    guess[0, 0] = guess[1, 1] = 1000.0
    first, second = track_captures([replace(made.capture, intrinsics=guess) for made in (clip, other)], model)
    assert np.array_equal(first.identity, second.identity)
    assert (first.frame_count, second.frame_count) == (45, 20)
    assert second.intrinsics[0, 0] < 960 < 1040 < first.intrinsics[0, 0]
    for found, known in ((first, clip), (second, other)):
        distances, turns = vertex_and_rotation_errors(found, known, model)
        assert np.median(distances) < 0.0025
        assert np.median(turns) < 2.5
        assert not found.flags.any()


def test_a_clip_of_very_few_frames_is_tracked(clip: SyntheticClip, model: HeadModel) -> None:
    capture = clip.capture
    lonely = capture.landmarks.copy()
    lonely[1:3] = np.nan
    for count, landmarks in (
        (1, capture.landmarks),
        (2, capture.landmarks),
        (5, capture.landmarks),
        (2, lonely),
        (3, lonely),
    ):
        few = replace(capture, landmarks=landmarks)
        few = replace(
            few,
            **{
                name: getattr(few, name)[:count]
                for name in ("frame_numbers", "frame_times", "landmarks", "scores", "detector_pose", "flags")
            },
        )
        assert np.nanmax(track_capture(few, model).residual) < 3


def test_a_clip_without_a_face_is_refused(clip: SyntheticClip, model: HeadModel) -> None:
    nobody = replace(clip.capture, landmarks=np.full_like(clip.capture.landmarks, np.nan))
    with pytest.raises(EffigyError, match="shows a face"):
        track_capture(nobody, model)


def test_a_head_without_landmarks_is_refused(clip: SyntheticClip, model: HeadModel) -> None:
    with pytest.raises(EffigyError, match="embed them"):
        track_capture(clip.capture, replace(model, landmark_faces=np.full(478, -1, np.int32)))


def test_tracking_can_be_stopped(clip: SyntheticClip, model: HeadModel) -> None:
    class Stop(Progress):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        track_capture(clip.capture, model, progress=Stop())


def test_a_track_is_read_back_as_it_was_written(track: Track, model: HeadModel, tmp_path: Path) -> None:
    ntsc = replace(track, fps=Fraction(30000, 1001))
    save_track(ntsc, tmp_path / "track.npz")
    back = load_track(tmp_path / "track.npz", model)
    for name, value in vars(ntsc).items():
        assert np.array_equal(
            getattr(back, name), value, equal_nan=isinstance(value, np.ndarray) and value.dtype.kind == "f"
        ), name


def test_bad_tracks_are_refused_with_a_sentence(track: Track, model: HeadModel, tmp_path: Path) -> None:
    path = tmp_path / "track.npz"
    with pytest.raises(EffigyError, match="no track"):
        load_track(path)
    save_track(track, path)
    with pytest.raises(EffigyError, match="choose that head model"):
        load_track(path, replace(model, template=model.template * 1.1))
    arrays = dict(np.load(path))
    for change, sentence in (
        ({"schema": np.int64(99)}, "newer"),
        ({"rotations": track.rotations[:-1]}, "damaged"),
        ({"fps": np.array((30, 0))}, "damaged"),
    ):
        np.savez(path, **{**arrays, **change})
        with pytest.raises(EffigyError, match=sentence):
            load_track(path)
    del arrays["sigma"]
    np.savez(path, **arrays)
    assert load_track(path, model).sigma is None
    del arrays["identity"]
    np.savez(path, **arrays)
    with pytest.raises(EffigyError, match="identity"):
        load_track(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(EffigyError, match="damaged"):
        load_track(path)
