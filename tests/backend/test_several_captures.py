"""One avatar from several captures of a person: all are trained on, and the first one's light is the avatar's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_capture import SIZE, make_small_capture, true_avatar

from backend.avatar.render import draw
from backend.errors import Cancelled, EffigyError
from backend.formats.track import load_track, save_track
from backend.progress import SILENT, Progress
from backend.service import commands
from backend.service.argument_parser import read_arguments
from backend.service.job_specs import read_job
from backend.service.requests import EvaluateRequest
from backend.training import fitted_poses, own_light
from backend.training.capture_light import CaptureLight, fit_affine, light_in_words
from backend.training.frames import TrackPoses, TrainingFrames, read_cutout
from backend.training.losses import anchor_limits
from backend.training.optimisation import SEED, Optimisation, render_over_white
from backend.training.parameter_groups import ParameterGroup, groups_beside_avatar
from backend.training.pose_refinement import REFINED_TRACK
from backend.training.presets import Preset
from backend.training.step_draws import rows_of_step
from backend.training.track_by_avatar import track_by_avatar
from backend.training.trainer import train
from backend.training.validation import split_captures
from backend.training.warmup import VertexBoundGaussians
from bench.capture_parts import make_part

CAST = np.array([[0.8, 0.05, 0], [0, 0.7, 0.05], [0, 0, 0.95]]), np.array([0.06, 0.0, 0.02])
"""A warmer and darker light, in which the second capture was made."""
SHORT = Preset(size=SIZE, warmup_steps=30, steps=4, refinement=True)


def warmer(image: np.ndarray) -> np.ndarray:
    return image @ CAST[0].T + CAST[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    yield make_small_capture(tmp_path_factory.mktemp("whole"), frames=40)
    patch.undo()


@pytest.fixture(scope="module")
def halves(whole):
    """The first 15 frames, and the other 25 in another light."""
    capture, track, _ = whole
    folder = capture.folder.parent
    return (
        make_part(capture, track, slice(15), folder / "first.capture"),
        make_part(capture, track, slice(15, None), folder / "second.capture", warmer),
    )


@pytest.fixture(scope="module")
def frames(whole, halves):
    captures, tracks = zip(*halves, strict=True)
    return TrainingFrames(captures, tracks, whole[2], SIZE)


class Said(Progress):
    def __init__(self, stop_at: str = "") -> None:
        self.messages: list[str] = []
        self.stop_at, self.stage = stop_at, ""

    def message(self, text: str) -> None:
        self.messages.append(text)

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.stage = stage

    def cancelled(self) -> bool:
        return bool(self.stop_at) and self.stage == self.stop_at


def test_the_last_fifth_of_each_capture_is_held_out_and_the_others_keep_their_poses_and_images(whole, frames, halves):
    assert frames.counts == [12, 20] and frames.indices.tolist() == [*range(12), *range(15, 35)]
    batch = frames.batch(torch.tensor([3, 12, 31]), SIZE)
    assert batch.captures.tolist() == [0, 1, 1]
    assert batch.times.tolist() == pytest.approx([3 / 39, 15 / 39, 34 / 39])
    for position, (part, own) in enumerate([(0, 3), (1, 0), (1, 19)]):
        capture, track = halves[part]
        image = read_cutout(capture, own, SIZE)[..., :3]
        assert ((batch.color[position].numpy() * 255).round() == image).all()
        alone = TrackPoses(track, whole[2])
        torch.testing.assert_close(batch.pose.posed[position], alone.pose(np.array([own])).posed[0])


def test_captures_are_drawn_in_proportion_to_their_frames(frames):
    drawn = np.concatenate([rows_of_step(torch.arange(32), 4, SEED, step).numpy() for step in range(8)])
    assert np.bincount(np.searchsorted([12], drawn, side="right")).tolist() == [12, 20]


def test_every_capture_has_its_own_focal_length(whole, halves):
    (_, first), (_, second) = halves
    longer = replace(second, intrinsics=np.array([[70, 0, 16], [0, 70, 16], [0, 0, 1]], np.float32), size=32)
    cameras = TrackPoses([first, longer], whole[2]).cameras(np.array([14, 15]), 128)
    assert cameras.intrinsics[:, 0].tolist() == [[280, 0, 64], [280, 0, 64]]
    shorter = replace(second, intrinsics=np.array([[99, 0, 30], [0, 99, 31], [0, 0, 1]], np.float32))
    cameras = TrackPoses([first, shorter], whole[2]).cameras(np.array([14, 15]), SIZE)
    assert cameras.intrinsics[:, :2].tolist() == [[[140, 0, 32], [0, 140, 32]], [[99, 0, 30], [0, 99, 31]]]


def test_validation_frames_come_from_every_capture_that_can_spare_them():
    rows, kept = split_captures([60, 10, 90], 0.1)
    assert len(rows) + len(kept) == 160 and sorted([*rows.tolist(), *kept.tolist()]) == list(range(160))
    of_each = np.searchsorted([60, 70], kept.numpy(), side="right")
    assert np.bincount(of_each, minlength=3).tolist() == [6, 0, 8]


def test_a_capture_without_good_frames_is_named(whole, halves):
    (first, first_track), (second, second_track) = halves
    none = replace(second_track, flags=np.ones_like(second_track.flags))
    with pytest.raises(EffigyError, match=f"No frame of {second.folder} can be trained on: leave it out"):
        TrainingFrames([first, second], [first_track, none], whole[2], SIZE)


def test_the_light_of_the_second_capture_is_recovered_and_the_colours_are_the_firsts(whole, frames, halves):
    model = whole[2]
    free = VertexBoundGaussians(torch.full((len(model.template),), 0.03), 0)
    light = CaptureLight(2)
    groups = [ParameterGroup([free.geometry], 1e-2), ParameterGroup([free.appearance], 3e-2)]
    optimisation = Optimisation(
        free,
        [*groups, *groups_beside_avatar(None, light)],
        frames,
        anchor_limits(model, free.base_scale),
        stage="",
        steps=250,
        batch=4,
        size=SIZE,
        final_rate=0.05,
        light=light,
    )
    optimisation.run(SILENT)
    optimisation.use_average()
    first, second = light.affine().detach().numpy()
    assert np.array_equal(first, np.eye(3, 4))
    colours = np.random.default_rng(0).uniform(0.2, 0.8, (100, 3))
    error = colours @ second[:, :3].T + second[:, 3] - warmer(colours)
    assert np.abs(error).mean() < 0.025, second
    # Without the light the avatar has a mean of both, 0.1 from either.
    batch = frames.batch(torch.tensor([2, 9]), SIZE)
    solid = batch.matte > 0.98
    shown = render_over_white(free, batch)[solid].mean(0)
    assert (shown - batch.color[solid].mean(0)).abs().max() < 0.02, shown
    seen = frames.batch(torch.tensor([20, 29]), SIZE)
    relit = render_over_white(free, seen, light=light)
    assert (relit[seen.matte > 0.98].mean(0) - seen.color[seen.matte > 0.98].mean(0)).abs().max() < 0.02


def test_an_avatar_of_two_captures_says_how_their_light_differs_and_resumes_with_the_same_list(halves, tmp_path):
    folders = [capture.folder for capture, _ in halves]
    path = tmp_path / "ball.effigy"
    with pytest.raises(Cancelled):
        train(folders, path, plan=SHORT, progress=Said("Training"))
    for other in (folders[::-1], folders[:1]):
        with pytest.raises(EffigyError, match="on other captures, or in another order: give the same captures"):
            train(other, path, plan=SHORT, resume=True)
    said = Said()
    avatar = train(folders, path, plan=SHORT, resume=True, progress=said)
    assert avatar.metrics["training_frames"] == 32
    assert not any("light" in name for name, _ in avatar.networks.named_parameters())
    [message] = [text for text in said.messages if "light" in text]
    assert message.startswith("The light of second.capture against that of first.capture, whose colours the avatar has")
    for capture, track in halves:
        refined = load_track(capture.folder / REFINED_TRACK)
        moved = (refined.expression != track.expression).any(1)
        assert moved[: capture.training_count].all() and not moved[capture.training_count :].any()


def test_the_poses_of_each_capture_are_fitted_and_kept_over_an_interruption(halves, tmp_path, monkeypatch):
    monkeypatch.setattr(fitted_poses, "STEPS_PER_FRAME", 0.05)
    plan = Preset(size=SIZE, warmup_steps=2, steps=8, refinement=False, fits_poses=True)
    folders, fits = [capture.folder for capture, _ in halves], []

    def fitted(avatar, capture, track, **options):
        found = track_by_avatar(avatar, capture, track, **options)
        fits.append((capture.folder.name, found.frames, options["light"] is not None))
        return found

    monkeypatch.setattr(fitted_poses, "track_by_avatar", fitted)
    at_once = train(folders, tmp_path / "whole.effigy", plan=plan)
    assert [name for name, _, _ in fits] == ["first.capture", "second.capture"] and all(lit for *_, lit in fits)
    assert 16 <= sum(frames for _, frames, _ in fits) <= 32
    with pytest.raises(Cancelled):
        train(folders, tmp_path / "parts.effigy", plan=plan, progress=Said("Training on"))
    fits.clear()
    parts = train(folders, tmp_path / "parts.effigy", plan=plan, resume=True)
    assert not fits
    for name, value in at_once.networks.state_dict().items():
        assert torch.equal(value, parts.networks.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda track: replace(track, identity=track.identity + 0.1), "with another identity than"),
        (lambda track: replace(track, head_name="cube", head_fingerprint="1"), "on the head model “cube”"),
    ],
)
def test_captures_that_were_not_tracked_together_are_refused(change, sentence, halves, tmp_path):
    (first, _), (second, track) = halves
    other = tmp_path / "other.capture"
    shutil.copytree(second.folder, other)
    save_track(change(track), other / "track.npz")
    with pytest.raises(EffigyError, match=sentence) as refusal:
        train([first.folder, other], tmp_path / "x.effigy", plan=SHORT)
    assert f"python -m backend track {first.folder} {other}" in str(refusal.value)
    assert str(refusal.value).startswith(str(other))


def test_a_capture_that_is_given_twice_is_refused(halves, tmp_path):
    folder = halves[0][0].folder
    with pytest.raises(EffigyError, match="is given twice"):
        train([folder, folder.parent / "." / folder.name], tmp_path / "x.effigy", plan=SHORT)


def test_the_training_size_must_fit_the_smallest_capture(halves, tmp_path):
    with pytest.raises(EffigyError, match="does not fit these captures: choose 64 to 64 pixels"):
        train([capture.folder for capture, _ in halves], tmp_path / "x.effigy", plan=SHORT, size=128)


def test_an_affine_change_of_colour_is_found_and_said():
    colours = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    matrix, offset = (torch.as_tensor(part).float() for part in CAST)
    found = fit_affine(colours, colours @ matrix.T + offset)
    torch.testing.assert_close(found.float(), torch.cat((matrix, offset[:, None]), 1), atol=0.01, rtol=0)
    alike = fit_affine(torch.full((50, 3), 0.5), torch.full((50, 3), 0.25))
    assert torch.isfinite(alike).all() and light_in_words(alike) == "red ×0.50, green ×0.50, blue ×0.50"
    assert torch.equal(fit_affine(torch.zeros(0, 3), torch.zeros(0, 3)), torch.eye(3, 4).double())
    assert light_in_words(torch.tensor([[1, 0, 0, 0.1], [0, 1, 0, 0], [0, 0, 0.5, 0]])) == (
        "red ×1.20, green ×1.00, blue ×0.50"
    )


def test_captures_in_another_light_are_scored_in_their_own(whole, halves):
    _, track, model = whole
    avatar = true_avatar(model, track)
    second, own = halves[1]
    good = np.arange(second.frame_count)
    training, scored = good[: second.training_count], good[second.training_count :]
    relit = own_light.score_in_own_light(avatar, second, own, training, scored, SIZE, SILENT)
    assert len(relit) == 5 and min(metrics.psnr_head for metrics in relit) > 30
    plain = draw(avatar, own, [scored[0]], SIZE)[0].over((1, 1, 1))
    truth = cv2.imread(str(second.frame_path(int(scored[0]))))[..., ::-1] / 255
    inner = cv2.imread(str(second.head_matte_path(int(scored[0]))), 0) > 250
    assert -10 * np.log10(np.square(plain - truth)[inner].mean()) < 25


def test_evaluation_reports_every_capture_by_its_name(whole, halves, tmp_path, monkeypatch):
    asked = []

    def evaluated(avatar, capture, out, *, own_light, **_):
        asked.append((capture.folder.name, out, own_light))
        out.mkdir(parents=True, exist_ok=True)
        return FakeMetrics()

    class FakeMetrics:
        def to_json(self):
            return {"psnr": 30.0, "per_frame": []}

    monkeypatch.setattr("backend.training.evaluation.evaluate", evaluated)
    monkeypatch.setattr(commands, "_load_avatar", lambda path: None)
    folders = tuple(capture.folder for capture, _ in halves)
    result = commands.evaluate(EvaluateRequest(Path("x.effigy"), folders, tmp_path / "out"), SILENT)
    assert asked == [
        ("first.capture", tmp_path / "out" / "first", True),
        ("second.capture", tmp_path / "out" / "second", True),
    ]
    told = json.loads(result.metrics_file.read_text())
    assert told["captures"] == {"first": {"psnr": 30.0}, "second": {"psnr": 30.0}}
    asked.clear()
    single = commands.evaluate(EvaluateRequest(Path("x.effigy"), folders[:1], tmp_path / "one"), SILENT)
    assert asked == [("first.capture", tmp_path / "one", False)]
    assert single.metrics_file == tmp_path / "one" / "metrics.json"
    other = tmp_path / "first.capture"
    shutil.copytree(folders[0], other)
    with pytest.raises(EffigyError, match="Two captures are named “first”"):
        commands.evaluate(EvaluateRequest(Path("x.effigy"), (folders[0], other), tmp_path / "out"), SILENT)
    other.rename(tmp_path / "First.capture")
    with pytest.raises(EffigyError, match="Two captures are named “First”"):
        commands.evaluate(
            EvaluateRequest(Path("x.effigy"), (tmp_path / "First.capture", folders[0]), tmp_path / "out"), SILENT
        )


def test_the_command_line_and_the_job_take_several_captures():
    request = read_arguments(["train", "a.capture", "b.capture", "c.effigy", "--resume"])
    assert [str(path) for path in request.captures] == ["a.capture", "b.capture"] and str(request.avatar) == "c.effigy"
    assert read_arguments(["train", "a.capture", "b.capture", "--resume", "c.effigy"]) == request
    assert read_arguments(["train", "a.capture", "--resume", "b.capture", "c.effigy"]) == request
    evaluation = read_arguments(["evaluate", "x.effigy", "a.capture", "--out", "d", "b.capture"])
    assert (str(evaluation.avatar), *map(str, evaluation.captures)) == ("x.effigy", "a.capture", "b.capture")
    job = read_job("train", {"capture": ["/a", "/b"], "avatar": "/c"})
    assert job.requests[0].captures == (Path("/a"), Path("/b"))
    job = read_job("track", {"capture": ["/a", "/b"], "cameras": "/t.json"})
    assert job.requests[0].captures == (Path("/a"), Path("/b")) and job.output == Path("/a")
    with pytest.raises(EffigyError, match="capture must be one full path, but is a list"):
        read_job("evaluate", {"capture": ["/a", "/b"], "avatar": "/c", "out": "/d"})
