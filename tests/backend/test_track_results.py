"""What becomes of solved frames: flags, the neck's share of the pose, and what report and overlay show of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation
from small_capture import make_small_capture

from backend.errors import Cancelled, EffigyError
from backend.formats.capture import Capture, FrameFlag
from backend.formats.track import Track
from backend.head.forward import Head
from backend.head.model import JAW, NECK, HeadModel
from backend.progress import Progress
from backend.tracking.after.neck import BODY_SHARE, NECK_LIMIT, split_neck
from backend.tracking.after.overlay import (
    DETECTED_COLOUR,
    EDGE_COLOUR,
    ERROR_COLOUR,
    TrackedHead,
    captioned,
    check_fits,
    draw_landmarks,
    tracked_landmarks,
)
from backend.tracking.after.report import (
    Summary,
    _Chart,
    _charts,
    _draw_chart,
    _runs,
    _some_left_out,
    _spread_out,
    summarise,
    uncertainty,
    write_report,
)
from backend.tracking.after.residuals import flag_frames, project_landmarks


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Track, HeadModel]:
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFIGY_USER", str(folder))
        return make_small_capture(folder, frames=8)


# --- flags


def test_a_frame_is_unsure_beyond_six_pixels_of_512_or_without_an_error() -> None:
    flags = np.array([0, 0, 2, 1, 0], np.int64)
    residual = np.array([6.0, 6.01, 7.0, np.nan, 0.0], np.float32)
    assert flag_frames(flags, residual, 512).tolist() == [0, 8, 10, 9, 0]
    assert flag_frames(flags, residual / 4, 128).tolist() == [0, 8, 10, 9, 0]
    assert flag_frames(flags, residual, 1024).tolist() == [0, 0, 2, 9, 0]
    assert flag_frames(flags, residual, 512).dtype == np.int32 and FrameFlag.TRACK_UNSURE == 8


# --- the neck's share


def turned(*yaws: float) -> np.ndarray:
    return Rotation.from_rotvec(np.outer(yaws, (0, 1, 0)), degrees=True).as_matrix()


JOINT = np.array([0.0, -0.1, 0.02])


def test_a_head_that_stays_turned_is_shared_by_body_and_neck_and_stays_where_it_was() -> None:
    random = np.random.default_rng(0)
    rotation = Rotation.from_rotvec(0.1 * random.normal(size=(60, 3))).as_matrix() @ turned(*np.linspace(0, 50, 60))
    translation = random.normal(size=(60, 3))
    neck, body = split_neck(rotation, translation, JOINT, np.ones(60, bool), 48, 25.0)
    by_neck = Rotation.from_rotvec(neck).as_matrix()
    np.testing.assert_allclose(body[:, :3, :3] @ by_neck, rotation, atol=1e-12)
    np.testing.assert_allclose(body[:, :3, :3] @ JOINT + body[:, :3, 3], rotation @ JOINT + translation, atol=1e-12)
    assert np.array_equal(body[:, 3], np.tile([0, 0, 0, 1], (60, 1)))


def test_a_quick_turn_is_the_necks_and_half_of_a_long_one_is_the_bodys() -> None:
    yaws = np.zeros(2000)
    yaws[1000:] = 40
    neck, body = split_neck(turned(*yaws), np.zeros((2000, 3)), JOINT, np.ones(2000, bool), 2000, 25.0)
    angles = np.degrees(neck[:, 1])
    # The clip's mean is 20 degrees; long before and after the turn the body takes half of the distance from it.
    assert BODY_SHARE == 0.5
    assert angles[[0, 1999]] == pytest.approx([-10, 10], abs=0.1)
    assert angles[[999, 1000]] == pytest.approx([-20, 20], abs=0.5), "in the moment of the turn the body stays"
    yaw = Rotation.from_matrix(body[:, :3, :3]).as_euler("YXZ", degrees=True)[:, 0]
    assert yaw[[0, 1999]] == pytest.approx([10, 30], abs=0.1)


def test_a_neck_turns_by_forty_degrees_at_most() -> None:
    yaws = np.zeros(400)
    yaws[200:204] = 70
    neck, body = split_neck(turned(*yaws), np.zeros((400, 3)), JOINT, np.ones(400, bool), 400, 25.0)
    assert np.degrees(np.linalg.norm(neck, axis=1).max()) == pytest.approx(40) == np.degrees(NECK_LIMIT)
    yaw = Rotation.from_matrix(body[:, :3, :3]).as_euler("YXZ", degrees=True)[:, 0]
    assert yaw[201] == pytest.approx(30, abs=0.1)


def test_neither_held_out_nor_unreliable_frames_nor_other_shots_move_the_body() -> None:
    yaws = np.zeros(300)
    ones = np.ones(300, bool)
    still, _ = split_neck(turned(*yaws), np.zeros((300, 3)), JOINT, ones, 200, 25.0)
    yaws[200:] = 60
    held_out, _ = split_neck(turned(*yaws), np.zeros((300, 3)), JOINT, ones, 200, 25.0)
    np.testing.assert_allclose(held_out[:200], still[:200], atol=1e-9)
    reliable = ones.copy()
    reliable[:100] = False
    yaws = np.r_[np.full(100, 60.0), np.zeros(200)]
    neck, _ = split_neck(turned(*yaws), np.zeros((300, 3)), JOINT, reliable, 300, 25.0, (100,))
    np.testing.assert_allclose(neck[100:], 0, atol=1e-3)
    assert np.degrees(neck[0, 1]) == pytest.approx(30, abs=0.1), "half of the other shot's turn is its body's"


# --- landmarks and the overlay


def test_landmarks_are_projected_from_the_posed_mesh(tracked: tuple[Capture, Track, HeadModel]) -> None:
    _, track, ball = tracked
    assert np.isnan(tracked_landmarks(track, ball)).all()
    faces, barycentric = ball.landmark_faces.copy(), ball.landmark_barycentric.copy()
    faces[[3, 400]], barycentric[[3, 400]] = (50, 60), ((0.2, 0.3, 0.5), (0, 1, 0))
    model = replace(ball, landmark_faces=faces, landmark_barycentric=barycentric)
    found = project_landmarks(track, model)
    assert found.shape == (8, 478, 2) and np.isfinite(found).all(2).sum() == 16
    assert np.array_equal(tracked_landmarks(track, model), found, equal_nan=True)
    import torch

    posed = Head(model)(
        torch.as_tensor(track.identity)[None], torch.as_tensor(track.expression), torch.as_tensor(track.rotations)
    ).vertices.numpy()
    corners = posed[5][model.faces[50]]
    place = (corners * np.array([[0.2], [0.3], [0.5]])).sum(0)
    pixel = track.intrinsics @ (track.head_to_camera[5, :3, :3] @ place + track.head_to_camera[5, :3, 3])
    assert found[5, 3] == pytest.approx(pixel[:2] / pixel[2], abs=1e-3)


def test_edges_are_drawn_where_they_face_the_camera(tracked: tuple[Capture, Track, HeadModel]) -> None:
    _, track, model = tracked
    grey = np.full((128, 128, 3), 100, np.uint8)
    solid = TrackedHead(track, model).draw(grey, 0, opacity=1.0)
    faint = TrackedHead(track, model).draw(grey, 0)
    drawn = (solid == EDGE_COLOUR).all(-1)
    assert 100 < drawn.sum() < 8000
    quarter = 100 + 0.25 * (np.array(EDGE_COLOUR) - 100)
    assert np.abs(faint[drawn].astype(float) - quarter).max() <= 1 and (grey == 100).all()
    # Eyeballs and the mouth's inside are left out, and a head that is seen from within shows nothing.
    regions = dict(model.regions)
    for name in ("eyes", "mouth_inside"):
        hidden = replace(model, regions=regions | {name: np.arange(len(model.template), dtype=np.int32)})
        assert np.array_equal(TrackedHead(track, hidden).draw(grey, 0), grey)
    inside_out = replace(model, faces=model.faces[:, ::-1])
    turned_away = TrackedHead(track, inside_out).draw(grey, 0, opacity=1.0)
    assert (turned_away != solid).any()


def test_a_landmark_is_a_dot_and_its_error_a_line() -> None:
    black = np.zeros((40, 40, 3), np.uint8)
    detected = np.array([(10.5, 20.5), (30.5, 5.5), (np.nan, 3.0)])
    tracked_at = np.array([(25.5, 20.5), (np.nan, np.nan), (9.0, 9.0)])
    drawn = draw_landmarks(black, detected, tracked_at)
    assert tuple(drawn[20, 10]) == tuple(drawn[5, 30]) == DETECTED_COLOUR
    for column in (16, 20, 24):
        assert drawn[20, column] == pytest.approx(ERROR_COLOUR, rel=0.1)
    assert not drawn[9, 9].any() and not drawn[20, 28:].any() and not black.any()
    rows, columns = np.nonzero(drawn[:12].any(-1))
    assert np.ptp(rows) <= 4 and np.ptp(columns) <= 4, "a dot of three pixels"


def test_a_caption_says_the_error_and_why_a_frame_is_left_out(tracked: tuple[Capture, Track, HeadModel]) -> None:
    _, track, _ = tracked
    grey = np.full((100, 256, 3), 90, np.uint8)
    flags, residual = track.flags.copy(), track.residual.copy()
    flags[1], residual[2] = FrameFlag.NO_FACE, np.nan
    marked = replace(track, flags=flags, residual=residual)
    good, left_out, unknown = (captioned(grey, index, marked) for index in (0, 1, 2))
    first, second = slice(0, 24), slice(26, 46)
    assert (good[first] != 90).any() and (good[second] == 90).all()
    assert (left_out[second] == (255, 150, 130)).all(-1).any() and (left_out[second] != 90).any()
    width = [np.flatnonzero((image[first] != 90).any((0, 2))).max() for image in (good, unknown)]
    assert width[0] > 2 * width[1], "an unknown error is not shown"
    assert (good[48:] == 90).all() and (grey == 90).all()


@pytest.mark.parametrize(("frames", "size"), [(9, 64), (8, 65)])
def test_a_track_of_another_capture_is_refused(
    tracked: tuple[Capture, Track, HeadModel], frames: int, size: int
) -> None:
    capture, track, _ = tracked
    check_fits(capture, track)
    other: Any = SimpleNamespace(frame_count=frames, size=size, folder=capture.folder)
    with pytest.raises(EffigyError, match=f"8 frames of 64 pixels, the capture .* {frames} of {size}: track it again"):
        check_fits(other, track)


# --- the report


def test_a_summary_in_words() -> None:
    summary = Summary(30, 21, 4, {"no face": 3, "several faces": 1}, 1.234, (7, 8))
    assert str(summary) == (
        "30 frames, 4 left out (3 no face, 1 several faces); in the others the head typically lies 1.23 px beside the "
        "detector's landmarks; training uses 21."
    )
    assert str(replace(summary, left_out=0, reasons={})).startswith("30 frames, 0 left out; in the others")


def test_a_summary_is_over_the_frames_in_use(tracked: tuple[Capture, Track, HeadModel]) -> None:
    track = replace(
        tracked[1],
        residual=np.array([1, 2, 3, 9, np.nan, 4, 5, 6], np.float32),
        flags=np.array([0, 0, 0, 1, 8, 0, 0, 0], np.int32),
        training_count=5,
    )
    found = summarise(track)
    assert (found.frames, found.training, found.left_out, found.median) == (8, 3, 2, 3.5)
    assert found.worst == (7, 6, 5, 2, 1, 0)
    nobody = summarise(replace(track, flags=np.ones(8, np.int32)))
    assert (nobody.training, nobody.left_out, nobody.worst) == (0, 8, ()) and np.isnan(nobody.median)


def test_frames_near_each_other_are_shown_once_and_five_at_most() -> None:
    assert _spread_out((100, 101, 102, 103, 300, 50, 10, 200, 250), 80) == [100, 103, 300, 50, 10]
    assert _spread_out((7, 6, 5), 39) == [7, 6, 5] and _spread_out((), 80) == []


def test_left_out_frames_are_shown_from_the_whole_clip(tracked: tuple[Capture, Track, HeadModel]) -> None:
    def shown(*flagged: int) -> list[int]:
        flags = np.zeros(100, np.int32)
        flags[list(flagged)] = 1
        return _some_left_out(replace(tracked[1], flags=flags))

    assert shown() == [] and shown(7) == [7] and shown(7, 9) == [7, 9]
    assert shown(*range(10, 51)) == [10, 20, 30, 40, 50]


def test_runs_of_left_out_frames_are_listed_and_24_at_most(tracked: tuple[Capture, Track, HeadModel]) -> None:
    def listed(flags: list[int]) -> list[str]:
        return _runs(replace(tracked[1], flags=np.array(flags, np.int32)))

    assert listed([0, 0]) == ["No frame is left out."]
    assert listed([1, 1, 0, 2, 8]) == ["0 to 1: no face", "3: several faces", "4: landmarks not matched by the head"]
    assert len(listed([0, 1] * 24)) == 24 and listed([0, 1] * 24)[-1] == "47: no face"
    more = listed([0, 1] * 27)
    assert len(more) == 25 and more[-1] == "and 3 more"


def charts(track: Track, model: HeadModel) -> list[_Chart]:
    return _charts(track, model)


def test_the_curves_are_those_of_the_track(tracked: tuple[Capture, Track, HeadModel]) -> None:
    _, track, ball = tracked
    model = replace(ball, expression_names=("eyeBlinkLeft", "eyeBlinkRight", "c", "d"))
    residual = np.array([1, 2, 0.5, np.nan, 1, 1, 1, 1], np.float32)
    cameras = np.tile(np.eye(4, dtype=np.float32), (8, 1, 1))
    angles = np.radians([(20, 0, 0), (0, 10, 0), (0, 0, 5), *[(0, 0, 0)] * 5])
    cameras[:, :3, :3] = np.diag([1.0, -1, -1]) @ Rotation.from_euler("YXZ", angles).as_matrix()
    rotations = np.zeros_like(track.rotations)
    rotations[:, JAW, 0] = np.radians(15)
    shown = replace(track, residual=residual, head_to_camera=cameras, rotations=rotations, sigma=None)
    error, rotation, face = charts(shown, model)
    limit = 6 * 64 / 512
    assert error.limit == pytest.approx(limit) and error.span == (0, pytest.approx(2.0))
    assert np.array_equal(error.curves[0][1], residual, equal_nan=True)
    assert charts(replace(shown, residual=residual / 10), model)[0].span[1] == pytest.approx(1.3 * limit)
    assert charts(replace(shown, residual=np.full(8, np.nan, np.float32)), model)[0].span[1] == pytest.approx(
        1.3 * limit
    )
    names, values = zip(*rotation.curves, strict=True)
    assert names == ("to its left", "down", "tilted to its right")
    np.testing.assert_allclose(np.abs(np.stack(values, 1)), np.abs(np.degrees(angles)), atol=1e-4)
    assert rotation.span == pytest.approx((min(map(np.min, values)) - 2, max(map(np.max, values)) + 2), abs=0.6)
    assert rotation.limit is None and face.span == (-0.1, 1.1)
    assert [name for name, _ in face.curves] == ["jaw opening, degrees / 30", "left eyelids", "right eyelids"]
    assert face.curves[0][1] == pytest.approx(0.5) and np.array_equal(face.curves[2][1], track.expression[:, 1])
    assert len(charts(shown, ball)[2].curves) == 1
    # The neck's turn counts as the head's.
    rotations[:, NECK, 1] = np.radians(30)
    by_neck = charts(replace(shown, rotations=rotations), model)[1]
    assert np.abs(by_neck.curves[0][1][3:]) == pytest.approx(30, abs=1e-3)
    uncertain = charts(replace(shown, sigma=np.full((8, 4 + 13), np.radians(2), np.float32)), model)
    assert len(uncertain) == 4 and uncertain[3].span == (0, 12)


def test_uncertainty_is_that_of_the_least_certain_direction() -> None:
    from backend.tracking.model.parameter_layout import ParameterLayout

    layout = ParameterLayout(4)
    sigma = np.zeros((2, 4 + 13))
    for part, degrees in ((layout.rotation, 1.0), (layout.eyes, 2.0), (layout.jaw, 3.0)):
        columns = np.arange(17)[part]
        sigma[0, columns[-1]], sigma[1, columns[0]] = np.radians(degrees), np.radians(degrees / 2)
    found = uncertainty(sigma)
    assert [name for name, _ in found] == ["head", "eyes", "jaw"]
    assert np.stack([values for _, values in found]).tolist() == [
        pytest.approx([degrees, degrees / 2]) for degrees in (1, 2, 3)
    ]


def test_a_chart_shades_what_is_left_out_and_marks_limit_and_held_out_part(
    tracked: tuple[Capture, Track, HeadModel],
) -> None:
    flags = np.array([0, 1, 1, 0, 2 | 8, 0, 8, 0], np.int32)
    track = replace(tracked[1], flags=flags, training_count=6)
    values = np.array([0, 1, 2, 3, np.nan, 5, 6, 20.0])
    axes = Figure().subplots()
    _draw_chart(axes, _Chart("Title", [("a", values), ("b", -values)], (0, 10), limit=7.0), track)
    assert axes.get_title(loc="left") == "Title" and axes.get_ylim() == (0, 10) and axes.get_xlim() == (-0.5, 7.5)
    first, second, limit, held_out = axes.get_lines()
    assert np.nanmax(first.get_ydata()) == 10 and np.nanmin(second.get_ydata()) == np.nanmax(second.get_ydata()) == 0
    assert np.isnan(first.get_ydata()[4]) and first.get_color() != second.get_color()
    assert list(limit.get_ydata()) == [7, 7] and list(held_out.get_xdata()) == [5.5, 5.5]
    shaded = [(patch.get_x(), patch.get_width(), to_hex(patch.get_facecolor())) for patch in axes.patches]
    assert [(x, width) for x, width, _ in shaded] == [(0.5, 2), (3.5, 1), (5.5, 1)]
    assert len({colour for _, _, colour in shaded}) == 3
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["a", "b", "no face", "several faces", "landmarks not matched by the head"]
    assert [text.get_text() for text in axes.texts] == ["held out"]
    plain = Figure().subplots()
    whole = replace(track, flags=np.zeros(8, np.int32), training_count=8)
    _draw_chart(plain, _Chart("Title", [("a", values)], (0, 10)), whole)
    assert len(plain.get_lines()) == 1 and not plain.patches and not plain.texts


def test_a_report_that_is_stopped_or_no_picture_leaves_nothing(
    tracked: tuple[Capture, Track, HeadModel], tmp_path: Any
) -> None:
    class Stop(Progress):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        write_report(*tracked, tmp_path / "a.png", progress=Stop())
    with pytest.raises(EffigyError, match="ends in .png, not a.jpg"):
        write_report(*tracked, tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_a_report_counts_its_steps_to_the_end(
    tracked: tuple[Capture, Track, HeadModel], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.tracking.after.report._draw", lambda *_: np.zeros((8, 8, 3), np.uint8))

    class Steps(Progress):
        def __init__(self) -> None:
            self.seen: list[tuple[str, int, int]] = []

        def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
            self.seen.append((stage, done, total))

    steps = Steps()
    capture, track, model = tracked
    flags = track.flags.copy()
    flags[3] = 1
    found = write_report(capture, replace(track, flags=flags), model, tmp_path / "a.PNG", progress=steps)
    assert found.left_out == 1 and steps.seen == [("report", 1, 4), ("report", 2, 4), ("report", 4, 4)]
