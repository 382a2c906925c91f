"""One person's performance on another's head: relative to each one's neutral, whatever it comes from."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.errors import EffigyError
from backend.footage.detector import SCORE_NAMES
from backend.formats import capture
from backend.formats.capture import FrameFlag
from backend.formats.track import Track, load_track, save_track
from backend.head.formats import load_head
from backend.head.jaw import jaw_rotations_of_shapes
from backend.head.model import EYE_L, JAW, NECK, HeadModel
from backend.retargeting.livelink import GAZE_ANGLES, MOST_BYTES, MOST_FRAMES, read_livelink
from backend.retargeting.retarget import neutral_of, retarget
from backend.service.cli import main

FRAMES = 90


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


def perform(model: HeadModel, rest: dict[str, float], seed: int, frames: int = FRAMES) -> Track:
    """Somebody who mostly rests at `rest`, smiles from frame 30 to 50, blinks at 60, and looks and nods about."""
    random = np.random.default_rng(seed)
    expression = np.zeros((frames, len(model.expression_names)))
    for name, value in rest.items():
        expression[:, model.expression_names.index(name)] = value
    smile, blink = (model.expression_names.index(name) for name in ("mouthSmileLeft", "eyeBlinkLeft"))
    expression[30:50, smile] += 0.6
    expression[60:63, blink] = 1
    rotations = np.zeros((frames, 5, 3))
    rotations[30:50, JAW, 0] = 0.2
    rotations[:, NECK, 0] = 0.1 * np.sin(np.arange(frames) / 7)
    rotations[:, EYE_L:, 1] = 0.02 * seed + 0.1 * np.sin(np.arange(frames) / 5)[:, None]
    place = np.tile(np.diag((1.0, -1, -1, 1)), (frames, 1, 1))
    turn = Rotation.from_euler("Y", 0.1 * seed) * Rotation.from_euler(
        "X", 0.05 * np.sin(np.arange(frames) / 9)[:, None]
    )
    place[:, :3, :3] = place[:, :3, :3] @ turn.as_matrix()
    place[:, :3, 3] = np.array((0.1 * seed, 0, 0.7 + 0.1 * seed)) + random.normal(0, 0.001, (frames, 3))
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=random.normal(0, 1, model.shape_basis.shape[2]).astype(np.float32),
        expression=expression.astype(np.float32),
        rotations=rotations.astype(np.float32),
        head_to_camera=place.astype(np.float32),
        intrinsics=np.array(((900, 0, 256), (0, 900, 256), (0, 0, 1)), np.float32),
        size=512,
        fps=Fraction(30),
        residual=np.ones(frames, np.float32),
        flags=np.zeros(frames, np.int32),
        training_count=frames,
        sigma=np.ones((frames, expression.shape[1] + 13), np.float32),
    )


@pytest.fixture(scope="module")
def performer(model: HeadModel) -> Track:
    return perform(model, {"browInnerUp": 0.9, "eyeBlinkLeft": 0.1}, 1)


@pytest.fixture(scope="module")
def target(model: HeadModel) -> Track:
    return perform(model, {"browInnerUp": 0.2, "eyeBlinkLeft": 0.4}, 2)


def test_the_uncertainty_of_neither_track_is_the_transfers(
    performer: Track, target: Track, model: HeadModel, tmp_path: Path
) -> None:
    made = retarget(performer, model, target, model, fps=Fraction(24))
    save_track(made, tmp_path / "made.npz")
    assert load_track(tmp_path / "made.npz", model).sigma is None


def of(track: Track, model: HeadModel, name: str) -> np.ndarray:
    return track.expression[:, model.expression_names.index(name)]


def test_a_neutral_is_the_quiet_face_and_a_mouth_that_never_shuts_is_no_neutral(
    performer: Track, model: HeadModel
) -> None:
    neutral = neutral_of(performer, model)
    found = dict(zip(model.expression_names, neutral.expression, strict=True))
    assert found["browInnerUp"] == pytest.approx(0.9, abs=1e-6) and found["mouthSmileLeft"] == 0
    assert found["eyeBlinkLeft"] == pytest.approx(0.1, abs=1e-6)
    talking = performer.rotations.copy()
    talking[:, JAW, 0] = 0.15 + 0.05 * np.sin(np.arange(FRAMES))
    assert neutral_of(replace(performer, rotations=talking), model).rotations[JAW, 0] <= np.radians(1) + 1e-6


def test_a_performance_on_its_own_head_is_itself(performer: Track, model: HeadModel) -> None:
    own = retarget(performer, model, performer, model)
    for name in ("expression", "rotations", "head_to_camera"):
        np.testing.assert_allclose(getattr(own, name), getattr(performer, name), atol=1e-5)


def test_what_is_carried_over_is_the_change_from_each_ones_neutral(
    performer: Track, target: Track, model: HeadModel
) -> None:
    made = retarget(performer, model, target, model)
    assert np.array_equal(made.identity, target.identity) and np.array_equal(made.intrinsics, target.intrinsics)
    np.testing.assert_allclose(of(made, model, "browInnerUp"), 0.2, atol=1e-5)
    np.testing.assert_allclose(of(made, model, "mouthSmileLeft")[40], 0.6, atol=1e-5)
    assert of(made, model, "eyeBlinkLeft")[0] == pytest.approx(0.4, abs=1e-5)
    # Closed is closed, whatever the lids' rest; and the head moves from its own place.
    assert of(made, model, "eyeBlinkLeft")[61] == pytest.approx(1, abs=1e-5)
    ours, theirs = neutral_of(performer, model), neutral_of(made, model)
    resting = neutral_of(target, model)
    np.testing.assert_allclose(theirs.head_to_camera, resting.head_to_camera, atol=2e-3)
    np.testing.assert_allclose(
        made.rotations[:, EYE_L, 1] - resting.rotations[EYE_L, 1],
        performer.rotations[:, EYE_L, 1] - ours.rotations[EYE_L, 1],
        atol=1e-5,
    )
    assert np.isnan(made.residual).all()


def test_a_blink_closes_eyes_that_rest_wider_open_than_the_performers(
    performer: Track, target: Track, model: HeadModel
) -> None:
    """From lids at 0.4 to closed is a change of 0.6, which would leave eyes that rest at 0.1 open by a third."""
    made = retarget(target, model, performer, model)
    assert of(made, model, "eyeBlinkLeft")[0] == pytest.approx(0.1, abs=1e-5)
    assert of(made, model, "eyeBlinkLeft")[61] == pytest.approx(1, abs=1e-5)


def test_intensity_scales_the_expression_but_neither_blinks_nor_gaze(
    performer: Track, target: Track, model: HeadModel
) -> None:
    whole, half, more = (retarget(performer, model, target, model, intensity=share) for share in (1, 0.5, 3))
    assert of(half, model, "mouthSmileLeft")[40] == pytest.approx(0.3, abs=1e-5)
    assert half.rotations[40, JAW, 0] == pytest.approx(0.1, abs=1e-5)
    assert of(more, model, "mouthSmileLeft").max() == 1
    np.testing.assert_allclose(of(half, model, "eyeBlinkLeft"), of(whole, model, "eyeBlinkLeft"), atol=1e-6)
    np.testing.assert_allclose(half.rotations[:, EYE_L:], whole.rotations[:, EYE_L:], atol=1e-6)


def test_without_motion_the_head_stands_at_its_resting_place(performer: Track, target: Track, model: HeadModel) -> None:
    still = retarget(performer, model, target, model, motion=0)
    assert np.ptp(still.head_to_camera, axis=0).max() < 1e-6 and np.ptp(still.rotations[:, NECK], axis=0).max() < 1e-6


def test_smoothing_calms_the_face_and_leaves_blinks(performer: Track, target: Track, model: HeadModel) -> None:
    trembling = replace(
        performer,
        expression=performer.expression
        + np.random.default_rng(0).normal(0, 0.02, performer.expression.shape).astype(np.float32).clip(0),
    )
    rough, smooth = (retarget(trembling, model, target, model, smoothing=seconds) for seconds in (0, 0.1))
    unrest = [np.abs(np.diff(of(track, model, "browInnerUp"), 2)).mean() for track in (rough, smooth)]
    assert unrest[1] < 0.2 * unrest[0]
    np.testing.assert_allclose(of(rough, model, "eyeBlinkLeft"), of(smooth, model, "eyeBlinkLeft"), atol=1e-6)


def test_smoothing_calms_jaw_neck_and_the_heads_place_and_leaves_the_eyes(
    performer: Track, target: Track, model: HeadModel
) -> None:
    random = np.random.default_rng(1)
    rotations, place = performer.rotations.copy(), performer.head_to_camera.copy()
    rotations[:, [NECK, JAW, EYE_L]] += random.normal(0, 0.01, (FRAMES, 3, 3))
    place[:, :3, 3] += random.normal(0, 0.01, (FRAMES, 3))
    place[:, :3, :3] = (
        Rotation.from_rotvec(random.normal(0, 0.01, (FRAMES, 3))) * Rotation.from_matrix(place[:, :3, :3])
    ).as_matrix()
    trembling = replace(performer, rotations=rotations, head_to_camera=place)
    rough, smooth = (retarget(trembling, model, target, model, smoothing=seconds) for seconds in (0, 0.1))

    def unrest(values: np.ndarray) -> float:
        # Where the performer neither smiles nor blinks.
        return np.abs(np.diff(values[:28], 2, axis=0)).mean()

    for joint in (NECK, JAW):
        assert unrest(smooth.rotations[:, joint]) < 0.2 * unrest(rough.rotations[:, joint])
    for part in (np.s_[:, :3, 3], np.s_[:, :3, :3]):
        assert unrest(smooth.head_to_camera[part]) < 0.2 * unrest(rough.head_to_camera[part])
    np.testing.assert_allclose(smooth.rotations[:, EYE_L], rough.rotations[:, EYE_L], atol=1e-6)
    products = smooth.head_to_camera[:, :3, :3] @ smooth.head_to_camera[:, :3, :3].transpose(0, 2, 1)
    np.testing.assert_allclose(products, np.tile(np.eye(3), (FRAMES, 1, 1)), atol=1e-5)


def test_frames_that_were_not_seen_are_bridged_and_keep_their_flags(
    performer: Track, target: Track, model: HeadModel
) -> None:
    expression, flags = performer.expression.copy(), performer.flags.copy()
    expression[70:75], flags[70:75] = 5, FrameFlag.TRACK_UNSURE
    made = retarget(replace(performer, expression=expression, flags=flags), model, target, model)
    whole = retarget(performer, model, target, model)
    np.testing.assert_allclose(made.expression[70:75], whole.expression[70:75], atol=1e-5)
    assert np.array_equal(made.flags, flags)


def test_another_frame_rate_keeps_the_time(performer: Track, target: Track, model: HeadModel) -> None:
    made = retarget(performer, model, target, model, fps=Fraction(24))
    assert made.fps == 24 and made.frame_count == round(89 * 24 / 30) + 1
    np.testing.assert_allclose(
        made.rotations[24, NECK], retarget(performer, model, target, model).rotations[30, NECK], atol=1e-5
    )


def write_csv(
    path: Path,
    rows: int,
    rate: int = 60,
    start: float = 3599.5,
    drop: tuple[int, ...] = (),
    swap_eyes: bool = False,
    rename=lambda name: name[0].upper() + name[1:],
) -> Path:
    """A take as Live Link Face writes it: a smile that grows, a look to the person's left that comes and goes, a
    nod.
    """
    angles = [f"{what}{turn}" for what in ("Head", "LeftEye", "RightEye") for turn in ("Yaw", "Pitch", "Roll")]
    lines = [",".join(("Timecode", "BlendShapeCount", *map(rename, SCORE_NAMES), *angles))]
    for row in range(rows):
        if row in drop:
            continue
        second, frame = divmod(round(start * rate) + row, rate)
        code = f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}:{frame:02d}.000"
        look = max(0.0, np.sin(row / 15))
        values = dict.fromkeys(SCORE_NAMES, 0.0) | {
            "mouthSmileLeft": row / rows,
            "jawOpen": 0.5,
            "eyeLookOutLeft": look,
            "eyeLookInRight": look,
        }
        eyes = (-1 if swap_eyes else 1) * GAZE_ANGLES[0] * look
        turns = (0.3, 0.1 * np.sin(row / 20), 0, eyes, 0, 0, eyes, 0, 0)
        lines.append(
            ",".join((code, "61", *(f"{values[name]:.6f}" for name in SCORE_NAMES), *(f"{turn:.6f}" for turn in turns)))
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_take_of_the_longest_duration_fits_with_all_digits_of_its_numbers() -> None:
    numbers = np.random.default_rng(0).random(61, np.float32).astype(float).tolist()
    row = ",".join(("00:11:57:36.689", "61", *(f"{number:.17g}" for number in numbers)))
    assert (len(row) + 2) * MOST_FRAMES <= MOST_BYTES
    assert capture.MOST_FRAMES == MOST_FRAMES > 3600 * 60, "an hour at 60 frames a second"


@pytest.mark.parametrize("swap_eyes", [False, True])
def test_a_live_link_face_take_is_read(model: HeadModel, tmp_path: Path, swap_eyes: bool) -> None:
    track = read_livelink(write_csv(tmp_path / "take.csv", 150, swap_eyes=swap_eyes), model)
    assert track.fps == 60 and track.frame_count == 150 and not track.flags.any()
    # A table knows no camera: one straight ahead, twice as long as its image is wide.
    assert np.array_equal(track.intrinsics, np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1 / track.size]]) * track.size)
    np.testing.assert_allclose(of(track, model, "mouthSmileLeft"), np.arange(150) / 150, atol=1e-5)
    assert of(track, model, "jawOpen").max() == 0
    np.testing.assert_allclose(
        track.rotations[:, JAW], np.tile(0.5 * jaw_rotations_of_shapes(model)["jawOpen"], (150, 1)), atol=1e-5
    )
    np.testing.assert_allclose(track.rotations[:, NECK, 1], 0.3, atol=0.02)
    # To the person's own left is a positive turn about the vertical, whatever sign the file's writer gave it.
    assert track.rotations[20, EYE_L, 1] == pytest.approx(GAZE_ANGLES[0] * np.sin(20 / 15), abs=1e-4)


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_the_timecodes_tell_the_rate_also_over_midnight(model: HeadModel, tmp_path: Path, rate: int) -> None:
    assert read_livelink(write_csv(tmp_path / "take.csv", 3 * rate, rate=rate, start=86398.5), model).fps == rate


def test_a_table_without_timecodes_has_the_applications_default_rate(model: HeadModel, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "take.csv", 30)
    path.write_text(re.sub(r"^\d+:\d+:\d+:\d+\.\d+", "", path.read_text(), flags=re.MULTILINE))
    track = read_livelink(path, model)
    assert track.fps == 60 and track.frame_count == 30


@pytest.mark.parametrize(("channels", "read"), [(19, False), (20, True)])
def test_a_table_with_twenty_of_the_channels_is_a_performance(
    model: HeadModel, tmp_path: Path, channels: int, read: bool
) -> None:
    path = write_csv(tmp_path / "take.csv", 30)
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join((*row[: 2 + channels], *row[2 + len(SCORE_NAMES) :])) for row in rows))
    if read:
        assert read_livelink(path, model).frame_count == 30
    else:
        with pytest.raises(EffigyError, match="52 channels"):
            read_livelink(path, model)


def test_rows_that_the_telephone_dropped_are_filled_in_and_a_long_gap_is_flagged(
    model: HeadModel, tmp_path: Path
) -> None:
    track = read_livelink(write_csv(tmp_path / "take.csv", 150, drop=(20, 50, 51, *range(90, 110))), model)
    assert track.frame_count == 150
    np.testing.assert_allclose(of(track, model, "mouthSmileLeft"), np.arange(150) / 150, atol=1e-3)
    assert list(np.flatnonzero(track.flags)) == list(range(90, 110))


def test_names_in_any_case_are_known_and_other_tables_refused_with_a_sentence(model: HeadModel, tmp_path: Path) -> None:
    track = read_livelink(write_csv(tmp_path / "lower.csv", 30, rename=lambda name: name), model)
    assert of(track, model, "mouthSmileLeft").max() > 0.9
    (tmp_path / "other.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    with pytest.raises(EffigyError, match="52 channels"):
        read_livelink(tmp_path / "other.csv", model)
    whole = (tmp_path / "lower.csv").read_text().splitlines()
    (tmp_path / "torn.csv").write_text("\n".join(whole[:5]) + "\n" + whole[5][:80])
    with pytest.raises(EffigyError, match="row 6"):
        read_livelink(tmp_path / "torn.csv", model)


def test_the_command_takes_a_table_and_a_track_and_writes_a_track_of_the_target(
    model: HeadModel, target: Track, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_track(target, tmp_path / "target.npz")
    take = write_csv(tmp_path / "take.csv", 120)
    arguments = ["retarget", str(take), str(tmp_path / "target.npz"), str(tmp_path / "out.npz")]
    assert main([*arguments, "--fps", "25", "--intensity", "0.8"]) == 0
    made = load_track(tmp_path / "out.npz", model)
    assert made.fps == 25 and np.array_equal(made.identity, target.identity)
    assert main([*arguments, "--intensity", "9"]) == 2
    (tmp_path / "none.mov").write_bytes(b"no performance")
    assert main(["retarget", str(tmp_path / "none.mov"), *arguments[2:]]) == 2
    assert "intensity" in (error := capsys.readouterr().err) and "Live Link Face" in error
