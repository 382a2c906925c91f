"""The sheet of sliders: which poses it has, what its figures mean, and that the real detector sees a rig's sliders."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from head_models import ball_head
from scipy.spatial.transform import Rotation

from backend.errors import Cancelled, EffigyError
from backend.footage import detector as detector_module
from backend.footage.detector import SCORE_NAMES, Face, FaceDetector
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.model import EYE_L, EYE_R, JAW
from backend.progress import SILENT, Progress
from backend.service import commands, requests
from backend.service.sentences import describe
from backend.training import slider_sheet
from backend.training.slider_poses import EMOTIONS, VISEMES, SliderPose, pose_arrays, sheet_poses
from backend.training.slider_scores import COMPANIONS, UNSEEN, SliderScore, SliderScores, group_of, score_sheet
from backend.training.slider_sheet import DETECTED_SIZE, PaintedMesh, render_scored_sliders
from backend.training.turntable import orbit_track

POSES = sheet_poses()
ALL = np.ones(478, bool)
MESH = np.random.default_rng(0).normal(0, 20, (len(POSES), 478, 2))
"""Landmarks that move in every pose."""


def face(scores: dict[str, float], landmarks: np.ndarray | None = None) -> Face:
    points = np.zeros((478, 3), np.float32)
    points[:, :2] = 0 if landmarks is None else landmarks
    return Face(points, np.array([scores.get(name, 0.0) for name in SCORE_NAMES], np.float32), np.eye(4))


def scored(see: Callable[[SliderPose], dict[str, float] | None], mesh: np.ndarray = MESH) -> SliderScores:
    """The scores of a sheet in which the detector sees these channels; None for no face. Landmarks are those of the
    mesh.
    """
    channels = [see(pose) for pose in POSES]
    faces = [None if seen is None else face(seen, points) for seen, points in zip(channels, mesh, strict=True)]
    return score_sheet(POSES, faces, mesh, ALL, DETECTED_SIZE)


def of(scores: SliderScores, name: str) -> SliderScore:
    return next(each for each in (*scores.sliders, *scores.combinations) if each.name == name)


def test_a_sheet_has_rest_both_values_of_52_sliders_fifteen_visemes_and_five_emotions() -> None:
    assert not POSES[0].values and len(POSES) == 1 + 2 * 52 + 15 + 5
    for name, half, full in zip(SCORE_NAMES, POSES[1:105:2], POSES[2:105:2], strict=True):
        assert (half.name, half.asked) == (name, {name: 0.5}) and (full.name, full.asked) == (name, {name: 1.0})
    assert [pose.name for pose in POSES[105:]] == [*VISEMES, *EMOTIONS]
    for values in (VISEMES | EMOTIONS).values():
        assert set(values) <= set(SCORE_NAMES) and all(0 < value <= 1 for value in values.values())


def test_lips_close_over_a_jaw_that_is_open_as_far() -> None:
    closed = [pose for pose in POSES if pose.name == "mouthClose"]
    assert [dict(pose.values) for pose in closed] == [
        {"mouthClose": value, "jawOpen": value} for value in (0.5, 1.0)
    ] and [dict(pose.base) for pose in closed] == [{"jawOpen": 0.5}, {"jawOpen": 1.0}]


def test_eyes_look_where_their_slider_says_and_the_jaw_turns_its_joint() -> None:
    model = load_head()
    names = ["eyeLookOutLeft", "eyeLookInLeft", "eyeLookOutRight", "eyeLookUpRight", "eyeLookDownLeft", "jawOpen"]
    expression, rotations = pose_arrays(model, [SliderPose(name, {name: 1.0}) for name in names])
    looks = [
        Rotation.from_rotvec(rotations[row, joint]).apply((0, 0, 1))
        for row, joint in enumerate((EYE_L, EYE_L, EYE_R, EYE_R, EYE_L))
    ]
    # +X is the person's left.
    assert looks[0][0] > 0.3 and looks[1][0] < -0.3 and looks[2][0] < -0.3 and looks[3][1] > 0.3 and looks[4][1] < -0.3
    assert (expression[np.arange(5), [model.expression_names.index(name) for name in names[:5]]] == 1).all()
    assert not expression[5].any() and rotations[5, JAW, 0] > 0.2


def test_a_head_without_arkits_names_is_refused_with_a_sentence() -> None:
    with pytest.raises(EffigyError, match="“ball” has no slider browDownLeft.*Leave --scores out"):
        pose_arrays(ball_head(), POSES)


def test_a_picture_that_shows_what_was_asked_is_perfect() -> None:
    scores = scored(lambda pose: {name: value for name, value in pose.values.items() if name not in UNSEEN})
    assert (scores.response, scores.monotonic, scores.spill) == (pytest.approx(1), 1, 0)
    assert scores.found == scores.pictures == 125 and scores.worst == []
    assert {each.name for each in scores.sliders if each.measured_by != "score"} == UNSEEN | {"mouthClose"}
    # Two random motions: the half's is not along the full one.
    assert of(scores, "cheekPuff").responses[1] == pytest.approx(1)
    assert of(scores, "sil").measured_by == "nothing" and of(scores, "ou").response == pytest.approx(1)


def test_a_picture_that_never_changes_responds_to_nothing() -> None:
    still = np.zeros_like(MESH)
    faces = [face({"browInnerUp": 0.4}, points) for points in still]
    scores = score_sheet(POSES, faces, MESH, ALL, DETECTED_SIZE)
    assert (scores.response, scores.monotonic, scores.spill) == (0, 0, 0)
    assert of(scores, "cheekPuff").responses == (0, 0)


def test_growth_is_a_share_of_what_the_score_at_rest_leaves() -> None:
    scores = scored(lambda pose: {"browInnerUp": 0.5 + 0.25 * pose.values.get("browInnerUp", 0)})
    assert of(scores, "browInnerUp").responses == (pytest.approx(0.25), pytest.approx(0.5))


def test_landmarks_measure_the_unseen_along_the_motion_of_the_mesh() -> None:
    mesh, seen = np.zeros_like(MESH), np.zeros_like(MESH)
    row = 1 + 2 * SCORE_NAMES.index("cheekPuff")
    mesh[row, 50], mesh[row + 1, 50] = (4, 0), (8, 0)
    seen[row, 50], seen[row + 1, 50] = (2, 9), (6, 9)
    valid = ALL.copy()
    valid[60] = False
    seen[row + 1, 60], mesh[row + 1, 60] = (99, 99), (-99, -99)
    scores = score_sheet(POSES, [face({}, points) for points in seen], mesh, valid, DETECTED_SIZE)
    assert of(scores, "cheekPuff").measured_by == "landmarks"
    assert of(scores, "cheekPuff").responses == (pytest.approx(0.25), pytest.approx(0.75))
    # No landmark of the mesh moves with the tongue.
    assert of(scores, "tongueOut").measured_by == "nothing" and of(scores, "tongueOut").response is None
    assert "Not measured: cheekSquintLeft" in str(scores) and "By landmarks alone: cheekPuff." in str(scores)


@pytest.mark.parametrize(
    ("slider", "other", "spill"),
    [
        ("jawOpen", "browInnerUp", 0.4),
        ("jawOpen", "mouthStretchLeft", 0),  # a companion
        ("mouthSmileLeft", "mouthSmileRight", 0),  # the other side
        ("mouthLeft", "mouthRight", 0.4),  # another direction
    ],
)
def test_spill_is_what_grows_unasked(slider: str, other: str, spill: float) -> None:
    result = of(scored(lambda pose: {other: 0.4 * pose.values.get(slider, 0)}), slider)
    assert result.spill == pytest.approx(spill) and result.spilled == (other if spill else None)


def test_companions_are_channels() -> None:
    groups = {group_of(name) for name in SCORE_NAMES}
    assert set(COMPANIONS) <= groups and {name for names in COMPANIONS.values() for name in names} <= groups


@pytest.mark.parametrize(
    ("responses", "monotonic"),
    [((0.3, 0.6), True), ((0.6, 0.59), True), ((0.6, 0.5), False), ((-0.1, 0.6), False), ((0.01, 0.04), False)],
)
def test_a_slider_is_monotonic_where_it_grows_twice_and_is_seen(
    responses: tuple[float, float], monotonic: bool
) -> None:
    assert SliderScore("jawOpen", "score", responses, 0, None, 2).monotonic is monotonic


def test_a_lost_face_is_counted_and_does_not_respond() -> None:
    scores = scored(lambda pose: None if pose.values == {"jawOpen": 1.0} else dict(pose.values))
    opened = of(scores, "jawOpen")
    assert opened.found == 1 and opened.responses == (pytest.approx(0.5), 0) and scores.found == 124
    # Its picture is also the base of mouthClose.
    assert of(scores, "mouthClose").response == 0 and "jawOpen" in scores.worst


def test_the_worst_are_those_that_fall_behind_the_mesh() -> None:
    def seeing(**least: float) -> SliderScores:
        return scored(lambda pose: {name: value * least.get(name, 1) for name, value in pose.values.items()})

    mesh = seeing(mouthFunnel=0.4, jawLeft=0)
    avatar = replace(seeing(mouthFunnel=0.3, jawLeft=0, mouthPucker=0.4), mesh=mesh)
    assert avatar.worst == ["mouthPucker"]
    assert avatar.to_json()["mesh"]["response"] == pytest.approx(mesh.response)
    assert f"of the mesh {mesh.response:.2f}" in str(avatar) and "Worse than the mesh: mouthPucker." in str(avatar)


def test_the_score_falls_with_every_fault() -> None:
    def score(see: Callable[[SliderPose], dict[str, float] | None]) -> float:
        return scored(see).to_json()["score"]

    perfect = score(lambda pose: dict(pose.values))
    assert perfect == pytest.approx(1)
    for fault in (
        lambda pose: {name: 0.5 * value for name, value in pose.values.items()},
        lambda pose: {**pose.values, "mouthPucker": 0.5} if "jawOpen" in pose.values else dict(pose.values),
        lambda pose: None if pose.name == "aa" else dict(pose.values),
    ):
        assert score(fault) < perfect


@pytest.fixture(scope="module")
def avatar() -> Any:
    """The open head without Gaussians, of which pictures are faked."""
    model = load_head()
    head = Head(model)
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    with torch.no_grad():
        shaped = head.shaped(torch.as_tensor(identity)[None])
    return SimpleNamespace(
        head_model=model,
        head=head,
        identity=identity,
        shaped=shaped,
        device=torch.device("cpu"),
        settings=SimpleNamespace(size=256),
        distances=lambda expression, rotations: expression.sum(1) + 1.5,
    )


class FakeDetector:
    """Sees in turn what the poses ask, in the avatar's picture and then in the mesh's."""

    def __init__(self, lost: int = -1) -> None:
        self.lost, self.count = lost, 0
        self.sizes: set[tuple[int, ...]] = set()

    def detect(self, image: np.ndarray) -> list[Face]:
        self.sizes.add(image.shape[:2])
        self.count += 1
        return [] if self.count - 1 == self.lost else [face(dict(POSES[(self.count - 1) // 2].values))]


@pytest.fixture
def grey(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(avatar: Any, track: Any, indices: list[int], size: int) -> list[Any]:
        return [SimpleNamespace(over=lambda background: np.full((size, size, 3), 0.5, np.float32))]

    monkeypatch.setattr(slider_sheet, "draw", draw)
    monkeypatch.setattr(
        PaintedMesh, "picture", lambda self, index: np.zeros((DETECTED_SIZE, DETECTED_SIZE, 3), np.uint8)
    )


@pytest.mark.usefixtures("grey")
def test_the_sheet_and_its_figures_lie_beside_each_other(avatar: Any, tmp_path: Path) -> None:
    detector = FakeDetector()
    scores = render_scored_sliders(avatar, detector, tmp_path / "sheet.png", size=32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.json", "sheet.png"]
    written = json.loads((tmp_path / "sheet.json").read_text("utf-8"))
    assert written["response"] == pytest.approx(scores.response) == pytest.approx(1)
    assert written["distances"]["at rest"] == 1.5 and written["distances"]["browInnerUp"] == 2.5
    assert "Furthest from the clip (1: its furthest frame): anger" in str(scores)
    assert len(written["sliders"]) == 52 and written["mesh"]["pictures"] == 125
    assert detector.count == 250 and detector.sizes == {(DETECTED_SIZE, DETECTED_SIZE)}
    # Eleven rows of sliders, ten pictures each, and three of rest and combinations.
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (14 * (32 + 36), 10 * 32, 3)


@pytest.mark.usefixtures("grey")
@pytest.mark.parametrize(("lost", "subject"), [(0, "avatar"), (1, "head model's mesh")])
def test_without_a_face_at_rest_there_are_no_figures(avatar: Any, tmp_path: Path, lost: int, subject: str) -> None:
    with pytest.raises(EffigyError, match=f"no face on the {subject} at rest"):
        render_scored_sliders(avatar, FakeDetector(lost), tmp_path / "sheet.png", size=32)
    with pytest.raises(EffigyError, match=r"ends in \.png"):
        render_scored_sliders(avatar, FakeDetector(), tmp_path / "sheet.jpg", size=32)

    class Stop(Progress):
        def raise_if_cancelled(self) -> None:
            raise Cancelled

    with pytest.raises(Cancelled):
        render_scored_sliders(avatar, FakeDetector(), tmp_path / "sheet.png", size=32, progress=Stop())
    assert not list(tmp_path.iterdir())


def test_the_command_scores_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scores = scored(lambda pose: dict(pose.values))
    monkeypatch.setattr(commands, "_load_avatar", lambda path: None)
    monkeypatch.setattr(detector_module, "FaceDetector", lambda: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(slider_sheet, "render_scored_sliders", lambda *parts, **options: scores)
    request = requests.ExtremesRequest(tmp_path / "a.effigy", tmp_path / "a.png", scores=True)
    assert request.locked == (tmp_path / "a.png", tmp_path / "a.json")
    assert replace(request, scores=False).locked == (tmp_path / "a.png",)
    said = describe(commands.run(request, SILENT))
    assert said.startswith(f"{tmp_path / 'a.png'}: mean response 1.00, 100% of 44 channels")


def test_the_detector_sees_sliders_on_the_painted_mesh(avatar: Any) -> None:
    names = ("jawOpen", "eyeBlinkLeft", "mouthSmileRight", "mouthClose")
    wanted = [index for index, pose in enumerate(POSES) if not pose.values or pose.name in names]
    mesh = PaintedMesh.of(
        avatar, orbit_track(avatar, *np.zeros((2, len(POSES))), *pose_arrays(avatar.head_model, POSES))
    )
    faces: list[Face | None] = [None] * len(POSES)
    with closing(FaceDetector()) as detector:
        for index in wanted:
            faces[index] = detector.detect(mesh.picture(index))[0]
    rest = faces[0]
    assert rest is not None
    valid = avatar.head_model.landmark_faces >= 0
    # The landmarks lie where the detector sees them.
    assert np.median(np.linalg.norm(rest.landmarks[valid, :2] - mesh.landmarks[0, valid], axis=1)) < 4
    scores = score_sheet(POSES, faces, mesh.landmarks, valid, DETECTED_SIZE)
    for name in names:
        slider = of(scores, name)
        assert slider.found == 2 and slider.monotonic and slider.response is not None and slider.response > 0.4
    assert scores.found == len(wanted)
