"""One bar over all stages of a job: it never falls, and the time left that it says is close to the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.service.job_specs import JOB_REQUESTS
from backend.service.job_steps import BAKE_STEPS, CAPTURE_STEPS, FOOTAGE, PERSON_FRAMES, SOLVER, steps_of
from backend.service.requests import BakeRequest, CaptureRequest, EvaluateRequest, TrackRequest, TrainRequest
from backend.service.stages import STAGES
from backend.service.whole_job import Standing, Step, WholeJob
from backend.tracking import pipeline
from bench.import_progress import LARGEST_ERROR, Recording, recordings, replay

CAPTURE = CaptureRequest(video=Path("/clip.mp4"), capture=Path("/clip.capture"))
IMPORT = (CAPTURE, TrackRequest(captures=(CAPTURE.capture,)))
BY_LANDMARKS = (CAPTURE, replace(IMPORT[1], landmarks_only=True))


def run(steps: Sequence[Step], frames: int, slower: dict[str, float]) -> list[tuple[float, Standing]]:
    """(time, standing) of a job whose kinds of work take so many times longer than measured; it ends at the last."""
    job, now, standings = WholeJob(steps, 0.0), 0.0, []
    for step in steps:
        for done in range(11):
            standing = job.update(step.stage, done * frames // 10, frames, now)
            assert standing is not None
            standings.append((now, standing))
            now += slower.get(step.kind, 1.0) * (step.work(frames) / 11 + (0.0 if done else step.lead))
    return [*standings, (now, replace(standings[-1][1], left=0.0))]


def said_and_true(standings: list[tuple[float, Standing]], share: float) -> tuple[float, float]:
    """The seconds left as said and as they were, after this share of the job's time."""
    end = standings[-1][0]
    when, standing = next(pair for pair in reversed(standings) if pair[0] <= share * end)
    return standing.left, end - when


@pytest.mark.parametrize("requests", [IMPORT, BY_LANDMARKS])
@pytest.mark.parametrize(
    ("frames", "slower"),
    [
        (300, {}),
        (24, {SOLVER: 0.6, FOOTAGE: 0.6}),
        (2000, {SOLVER: 2.0, FOOTAGE: 2.0}),
        # 4K footage, which takes long to read, on a fast machine.
        (600, {FOOTAGE: 6.0}),
    ],
)
def test_the_bar_never_falls_and_the_time_left_is_close(requests, frames, slower) -> None:
    standings = run(steps_of(requests), frames, slower)
    shares = [standing.share for _, standing in standings]
    assert shares == sorted(shares) and shares[0] < 0.02 and shares[-1] > 0.97
    assert all(standing.share <= standing.ahead <= 1 for _, standing in standings)
    # How long the solver takes is known only after the footage was read.
    at_once = slower.get(SOLVER) == slower.get(FOOTAGE)
    for share, tolerance in ((0.25, 0.3), (0.5, 0.25), (0.75, 0.25)):
        said, true = said_and_true(standings, share)
        assert said == pytest.approx(true, rel=tolerance if at_once else 0.9, abs=2)


def test_neighbours_of_one_title_are_one_step() -> None:
    standings = run(steps_of(IMPORT), 100, {})
    shown = list(dict.fromkeys((standing.step, standing.steps, standing.title) for _, standing in standings))
    assert shown == [
        (1, 7, "Finding the head"),
        (2, 7, "Cropping the frames"),
        (3, 7, "Shape of the head"),
        (4, 7, "Look of the skin"),
        (5, 7, "Pose and expression"),
        (6, 7, "Alignment to the skin"),
        (7, 7, "Separating the head from the body"),
    ]


@pytest.mark.parametrize("recording", recordings(), ids=lambda recording: recording.name)
def test_the_time_left_of_recorded_imports_is_within_its_factor(recording: Recording) -> None:
    for moment in replay(recording):
        assert moment.factor < LARGEST_ERROR, moment


def test_the_lead_of_a_step_is_not_taken_for_its_pace() -> None:
    """Ten seconds of loading before ten frames of a second each."""
    job = WholeJob([Step("a", "A", "x", 0.0, 1.0, lead=10.0, counts_frames=True), Step("b", "B", "x", 5.0)], 0.0)
    begun = job.update("a", 0, 10, 0.0)
    assert begun is not None and begun.left == pytest.approx(25)
    for done in (0, 1, 5):
        standing = job.update("a", done, 10, 10.0 + done)
        assert standing is not None and standing.left == pytest.approx(15 - done)
    # A stage that reports its first unit, and not that it begins, has led as well.
    job = WholeJob([Step("a", "A", "x", 0.0, 1.0, lead=10.0, counts_frames=True)], 0.0)
    first = job.update("a", 1, 5, 10.0)
    assert first is not None and first.left == pytest.approx(4)


def test_large_frames_take_longer_to_read_and_no_longer_to_solve() -> None:
    small, large = steps_of(IMPORT, megapixels=0.25), steps_of(IMPORT, megapixels=8.3)
    for before, after in zip(small, large, strict=True):
        assert after.duration(0) == before.duration(0)
        assert (after.per_frame > 3 * before.per_frame) == (before.kind == FOOTAGE)


def test_the_film_is_asked_for_the_size_of_its_frames(tmp_path: Path) -> None:
    film = tmp_path / "film.png"
    cv2.imwrite(str(film), np.zeros((500, 1000, 3), np.uint8))
    assert steps_of((replace(CAPTURE, video=film),)) == steps_of((CAPTURE,), megapixels=0.5)


def test_a_person_is_fitted_to_no_more_frames_however_long_the_clip_is() -> None:
    assert PERSON_FRAMES == pipeline.PERSON_FRAMES
    for step in steps_of(IMPORT):
        assert (step.duration(5000) == step.duration(PERSON_FRAMES)) == (step.stage in ("tracker", "person", "skin"))


def test_a_step_that_does_not_happen_takes_no_time() -> None:
    steps = [Step("a", "A", "x", 10.0), Step("b", "B", "x", 100.0), Step("c", "C", "x", 10.0)]
    job = WholeJob(steps, 0.0)
    job.update("a", 0, 10, 0.0)
    standing = job.update("c", 0, 10, 10.0)
    assert standing is not None and standing.left == pytest.approx(10) and standing.share == pytest.approx(0.5)


def test_a_resumed_stage_counts_what_is_left_of_it() -> None:
    job = WholeJob([Step("warm", "Warm", "x", 10.0), Step("train", "Train", "x", 100.0)], 0.0)
    first = job.update("train", 800, 1000, 0.0)
    assert first is not None and first.left == pytest.approx(20) and first.share == 0
    half = job.update("train", 900, 1000, 10.0)
    assert half is not None and half.left == pytest.approx(10) and half.share == pytest.approx(0.5)


def test_a_training_by_the_clock_takes_its_minutes_however_slow_the_machine_is() -> None:
    training = TrainRequest(captures=(CAPTURE.capture,), avatar=Path("/x.effigy"), minutes=1.0, head_only=True)
    training = replace(training, fit_poses=True)
    job = WholeJob(steps_of((training,)), 0.0)
    job.update("Reading frames", 40, 40, 5.0)
    # The first step compiles the kernels, which takes the whole warm-up.
    compiled = job.update("Warm-up", 6, 6, 45.0)
    assert compiled is not None and compiled.left == pytest.approx(54) and compiled.share == pytest.approx(45 / 99)
    early = job.update("Training", 9, 19, 54.0)
    assert early is not None and early.left == pytest.approx(45, abs=2)
    job.update("Fitting poses again", 90, 90, 72.0)
    late = job.update("Training on", 18, 27, 90.0)
    assert late is not None and late.left == pytest.approx(9, abs=2)


def test_poses_are_fitted_on_the_way_only_if_asked_for_and_not_there_already() -> None:
    training = TrainRequest(captures=(CAPTURE.capture,), avatar=Path("/x.effigy"), head_only=True)
    asked = replace(training, fit_poses=True)
    stages = [[step.stage for step in steps_of((each,))] for each in (training, asked, replace(asked, refined=True))]
    assert stages[1][-3:] == ["Training", "Fitting poses again", "Training on"]
    assert stages[0] == stages[2] and stages[0][-1] == "Training"


def test_the_shoulders_come_after_the_head_and_take_a_tenth_of_its_minutes_at_most() -> None:
    training = TrainRequest(captures=(CAPTURE.capture,), avatar=Path("/x.effigy"))
    for minutes, seconds in ((None, 27.0), (1.0, 6.0), (60.0, 27.0)):
        *head, bust = steps_of((replace(training, minutes=minutes),))
        assert head == steps_of((replace(training, minutes=minutes, head_only=True),))
        assert bust.stage == "Bust" and bust.seconds == pytest.approx(seconds)


def test_a_step_of_training_takes_longer_with_graph_u_nets() -> None:
    training = TrainRequest(captures=(CAPTURE.capture,), avatar=Path("/x.effigy"))
    blendshapes, unet = (steps_of((replace(training, generator=name),)) for name in ("blendshapes", "unet"))
    assert steps_of((training,)) == blendshapes
    for own, others in zip(blendshapes, unet[: len(blendshapes)], strict=True):
        ratio = 0.61 if own.stage.startswith("Training") else 1
        assert own.seconds == pytest.approx(ratio * others.seconds, rel=0.04)
    # They are baked at the end.
    assert (
        tuple(unet[len(blendshapes) :])
        == BAKE_STEPS
        == tuple(steps_of((BakeRequest(Path("/x.effigy"), Path("/y.effigy")),)))
    )


def test_a_stage_that_is_not_among_the_steps_moves_nothing() -> None:
    job = WholeJob(CAPTURE_STEPS, 0.0)
    assert job.update("report", 1, 2, 0.0) is None
    before = job.update("finding the head", 50, 100, 1.0)
    assert job.update("report", 1, 2, 2.0) == before


def test_the_steps_name_stages_that_exist() -> None:
    training = TrainRequest(captures=(CAPTURE.capture,), avatar=Path("/x.effigy"))
    for requests in (IMPORT, BY_LANDMARKS, (training,), (replace(training, minutes=3.0),)):
        steps = steps_of(requests)
        assert steps and {step.stage for step in steps} <= set(STAGES)
        assert all(step.duration(300) > 0 for step in steps)
    assert steps_of((EvaluateRequest(avatar=Path("/x"), captures=(Path("/c"),), out=Path("/o")),)) == []
    assert "import" in JOB_REQUESTS


def test_a_users_own_flame_file_brings_a_step_of_its_own() -> None:
    own = steps_of((CAPTURE, TrackRequest(captures=(CAPTURE.capture,), head=Path("/flame.pkl"))))
    assert [step.stage for step in own if step not in steps_of(IMPORT)] == ["landmarks"]
