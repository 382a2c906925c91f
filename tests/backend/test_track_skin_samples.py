"""Skin samples: where they lie, when they are visible, and how albedo and light are estimated from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from head_models import ball_head
from scipy.spatial.transform import Rotation

from backend.errors import EffigyError
from backend.formats.capture import Capture
from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.tracking.model.camera import Camera
from backend.tracking.model.frame_state import FrameState
from backend.tracking.observe import albedo_and_light
from backend.tracking.observe.albedo_and_light import (
    PersonAppearance,
    fit_light,
    learn_appearance,
    log_shading,
    spherical_harmonics,
)
from backend.tracking.observe.skin_samples import (
    PATCHES,
    SAMPLES_PER_PATCH,
    PosedClip,
    Skin,
    SkinView,
    make_skin,
    sample_frames,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, FOCAL = 256, 500.0
LIGHT = np.array((1.0, -0.25, -0.45, 0.3, 0.05, 0.08, 0.06, -0.1, 0.04))


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def skin(model: HeadModel) -> Skin:
    return make_skin(model)


def test_places_lie_on_face_and_ears_and_never_on_what_moves_by_itself(skin: Skin, model: HeadModel) -> None:
    assert np.isin(skin.corners, np.concatenate((model.regions["face"], model.regions["ears"]))).all()
    assert not np.isin(skin.corners, np.concatenate((model.regions["eyes"], model.regions["mouth_inside"]))).any()
    assert np.isin(skin.corners, model.regions["ears"]).all(1).any()
    assert len(skin.patch) == PATCHES * SAMPLES_PER_PATCH
    assert skin.barycentric.min() >= 0 and np.allclose(skin.barycentric.sum(1), 1, atol=1e-6)


def test_eyes_and_mouth_are_left_out_even_where_they_are_said_to_be_face(model: HeadModel) -> None:
    never = np.concatenate((model.regions["eyes"], model.regions["mouth_inside"]))
    greedy = replace(model, regions={**model.regions, "face": np.union1d(model.regions["face"], never)})
    assert not np.isin(make_skin(greedy).corners, never).any()


def test_places_are_as_dense_here_as_there(skin: Skin, model: HeadModel) -> None:
    corners, count = np.unique(skin.corners, axis=0, return_counts=True)
    ends = model.template[corners].astype(np.float64)
    area = np.linalg.norm(np.cross(ends[:, 1] - ends[:, 0], ends[:, 2] - ends[:, 0]), axis=1)
    large = area > np.quantile(area, 0.9)
    assert np.ptp(count[large] / area[large]) < 1.2 * np.median(count[large] / area[large])


def test_places_near_each_other_make_a_patch(skin: Skin, model: HeadModel) -> None:
    assert (np.diff(skin.patch) >= 0).all()
    assert np.array_equal(np.unique(skin.patch), np.arange(PATCHES))
    places = np.einsum("dk,dkc->dc", skin.barycentric, model.template[skin.corners])
    middles = skin.centres.position.rest.numpy()
    distance = np.linalg.norm(places - middles[skin.patch], axis=1)
    assert distance.max() < 0.016
    # Each belongs to the nearest middle.
    assert (distance <= np.linalg.norm(places[:, None] - middles[None], axis=2).min(1) + 1e-6).all()


def test_a_patchs_directions_are_a_basis_whose_last_goes_through_the_skin(skin: Skin, model: HeadModel) -> None:
    bases = skin.bases.double()
    assert torch.allclose(
        bases.transpose(1, 2) @ bases, torch.eye(3, dtype=torch.float64).expand(PATCHES, 3, 3), atol=1e-5
    )
    places = np.einsum("dk,dkc->dc", skin.barycentric, model.template[skin.corners]).astype(np.float64)
    flatness = []
    for patch in range(0, PATCHES, 3):
        own = places[skin.patch == patch]
        # The direction in which a patch extends least is across it.
        thin = np.linalg.svd(own - own.mean(0), full_matrices=False)[2][-1]
        flatness.append(abs(thin @ bases[patch, :, 2].numpy()))
    assert np.median(flatness) > 0.95


def test_the_skin_is_the_same_every_time(skin: Skin, model: HeadModel) -> None:
    again = make_skin(model)
    for name in ("corners", "barycentric", "patch"):
        assert np.array_equal(getattr(again, name), getattr(skin, name))
    assert torch.equal(again.bases, skin.bases)


@pytest.mark.parametrize("missing", (("ears",), ("ears", "eyes", "mouth_inside")))
def test_a_head_that_lacks_regions_has_skin_on_those_it_has(missing: tuple[str, ...]) -> None:
    ball = ball_head()
    skin = make_skin(replace(ball, regions={name: part for name, part in ball.regions.items() if name not in missing}))
    assert np.isin(skin.corners, ball.regions["face"]).all()
    assert np.isfinite(skin.centres.position.rest.numpy()).all() and np.isfinite(skin.bases.numpy()).all()


def test_a_head_that_does_not_say_where_its_skin_is_is_refused() -> None:
    ball = ball_head()
    nowhere = {name: np.zeros(0, np.int32) for name in ball.regions}
    with pytest.raises(EffigyError, match='"ball" does not say where its skin is'):
        make_skin(replace(ball, regions=nowhere))


def _filmed(model: HeadModel, folder: Path, yaws: tuple[float, ...]) -> PosedClip:
    """Heads at rest before a grey wall of which the matte says that all of it is the person."""
    frames = len(yaws)
    intrinsics = np.array(((FOCAL, 0, SIZE / 2), (0, FOCAL, SIZE / 2), (0, 0, 1)))
    turn = np.diag((1.0, -1.0, -1.0)) @ Rotation.from_euler("Y", np.array(yaws)[:, None], degrees=True).as_matrix()
    capture = Capture(
        folder=folder,
        source_name="wall",
        source_sha256="0" * 64,
        size=SIZE,
        fps=Fraction(25),
        crop=(0.0, 0.0, float(SIZE)),
        intrinsics=intrinsics,
        frame_numbers=np.arange(frames),
        frame_times=np.arange(frames) / 25.0,
        landmarks=np.full((frames, 478, 3), 100, np.float32),
        scores=np.zeros((frames, 52), np.float32),
        detector_pose=np.zeros((frames, 4, 4), np.float32),
        flags=np.zeros(frames, np.int32),
        frame_suffix=".png",
    )
    (folder / "frames").mkdir(parents=True)
    (folder / "mattes").mkdir()
    for index in range(frames):
        cv2.imwrite(str(capture.frame_path(index)), np.full((SIZE, SIZE, 3), 128, np.uint8))
        cv2.imwrite(str(capture.matte_path(index)), np.full((SIZE, SIZE), 255, np.uint8))
    state = FrameState(
        torch.zeros(frames, len(model.expression_names) + 7),
        torch.as_tensor(turn, dtype=torch.float32),
        torch.tensor((0.0, 0.0, 0.6)).expand(frames, 3),
    )
    camera = Camera.from_intrinsics(intrinsics, SIZE, torch.tensor((0.0, 0.0, 0.05)))
    return PosedClip(capture, state, np.arange(frames), camera, np.ones(frames, bool))


def test_what_the_nose_hides_and_what_the_matte_leaves_out_is_not_looked_at(
    skin: Skin, model: HeadModel, tmp_path: Path
) -> None:
    clip = _filmed(model, tmp_path / "c", (60.0, 0.0))
    matte = np.full((SIZE, SIZE), 255, np.uint8)
    matte[:, SIZE // 2 :] = 0
    cv2.imwrite(str(clip.capture.matte_path(1)), matte)
    nobody = torch.zeros(model.shape_basis.shape[2])
    turned, front = sample_frames(skin, nobody, clip, 2.0, lambda _, view: view)
    assert not front.weight[front.pixels[:, 0] > SIZE / 2 + 4].any()
    assert (front.weight[front.pixels[:, 0] < SIZE / 2 - 4] > 0).mean() > 0.4

    points = (model.template.astype(np.float64) - (0, 0, 0.05)) @ clip.state.rotation[0].double().numpy().T + (
        0,
        0,
        0.6,
    )
    places = np.einsum("dk,dkc->dc", skin.barycentric, points[skin.corners])
    facing = np.flatnonzero(-(turned.normals * places).sum(1) / np.linalg.norm(places, axis=1) > 0.35)[::3]
    hidden = np.array([_in_front(points[model.faces], place) for place in places[facing]])
    behind, clear = facing[hidden > 0.012], facing[hidden < 0.001]
    assert len(behind) > 20
    # At the nose's very edge a pixel of the depth picture decides.
    assert (turned.weight[behind] > 0).mean() < 0.1
    assert (turned.weight[clear] > 0).mean() > 0.97


def _in_front(triangles: np.ndarray, place: np.ndarray) -> float:
    """By how many metres of depth a triangle (T, 3, 3) lies before a place (3,) on the ray from the camera, at most."""
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    across = np.cross(place, second)
    volume = (first * across).sum(1)
    volume = np.where(np.abs(volume) < 1e-12, 1e-12, volume)
    u = -(triangles[:, 0] * across).sum(1) / volume
    other = np.cross(-triangles[:, 0], first)
    v, length = other @ place / volume, (second * other).sum(1) / volume
    met = (u >= 0) & (v >= 0) & (u + v <= 1) & (length > 0) & (length < 1)
    return float(((1 - length[met]) * place[2]).max(initial=0))


def _lit(random: np.random.Generator, frames: int, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normals (F, 500, 3) of places that turn with a head, seen at all times, and their shading."""
    rest = random.normal(0, 1, (500, 3)) * (1, 1, 0.5) - (0, 0, 1.2)
    turns = Rotation.from_euler(
        "YX", np.stack((np.linspace(-50, 50, frames), random.uniform(-15, 15, frames)), 1), degrees=True
    )
    normals = (rest / np.linalg.norm(rest, axis=1, keepdims=True)) @ turns.as_matrix().transpose(0, 2, 1)
    return normals.astype(np.float32), log_shading(light, normals)


def test_harmonics_are_orthogonal_over_all_directions() -> None:
    normals = np.random.default_rng(0).normal(size=(200_000, 3))
    shapes = spherical_harmonics(normals / np.linalg.norm(normals, axis=1, keepdims=True))
    products = shapes.T @ shapes / len(shapes)
    size = np.sqrt(np.diag(products))
    assert np.abs(products / size / size[:, None] - np.eye(9)).max() < 0.01


def test_shading_is_the_brightness_of_a_lambertian_ball() -> None:
    normals = np.array(((0, 0, -1.0), (0, -1.0, 0), (1.0, 0, 0), (-1.0, 0, 0)))
    light = np.zeros(9)
    light[0], light[3] = 1.0, 0.5
    assert np.allclose(np.exp(log_shading(light, normals)), (1, 1, 1.5, 0.5), atol=1e-6)
    # No light is darker than the least, which keeps the logarithm sane.
    light[3] = 5.0
    assert np.exp(log_shading(light, normals)).min() > 0.05


def test_light_is_found_on_skin_whose_colour_is_known_in_spite_of_gloss() -> None:
    random = np.random.default_rng(1)
    normals, shown = _lit(random, 8, LIGHT)
    bright = np.exp(shown) * np.exp(random.normal(0, 0.02, shown.shape))
    weight = random.uniform(0.2, 1, shown.shape)
    found = fit_light(bright, spherical_harmonics(normals), weight)
    assert np.abs(log_shading(found, normals) - shown).max() < 0.03
    gloss = random.uniform(size=shown.shape) < 0.06
    found = fit_light(np.where(gloss, 3 * bright, bright), spherical_harmonics(normals), weight)
    assert np.median(np.abs(log_shading(found, normals) - shown)) < 0.02
    assert np.quantile(np.abs(log_shading(found, normals) - shown), 0.95) < 0.06


def test_colour_and_light_are_told_apart_as_far_as_what_is_seen_goes(
    skin: Skin, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(2)
    albedo = random.normal(-1.0, 0.25, 500).astype(np.float32)
    other = LIGHT * (0.6, -1, 1, -1, 1, 1, 1, 1, 1)
    clips = [_lit(random, 10, light) for light in (LIGHT, other)]
    gloss = [random.uniform(size=shown.shape) < 0.03 for _, shown in clips]

    def sampled(skin: object, identity: object, clip: PosedClip, blur: float, use: Callable) -> object:
        number = clip.camera
        normals, shown = clips[number]
        for index in range(10):
            values = albedo + shown[index] + gloss[number][index]
            values = np.stack((values, 0 * values, 0 * values), 1)
            yield use(
                index, SimpleNamespace(sample=lambda values=values: values, normals=normals[index], weight=np.ones(500))
            )

    monkeypatch.setattr(albedo_and_light, "sample_frames", sampled)
    lit = [PosedClip(None, None, np.arange(10), number, np.ones(10, bool)) for number in range(2)]
    found = learn_appearance(skin, torch.zeros(1), lit, 2.0)
    assert found.determined.all() and found.lights.shape == (2, 9)
    for clip, (normals, shown) in enumerate(clips):
        for index in (0, 5, 9):
            view = SkinView(np.zeros((2, 2, 3)), np.zeros((500, 2)), normals[index], np.ones(500))
            error = found.expected(clip, view) - (albedo + shown[index])
            assert np.median(np.abs(error)) < 0.04
            assert np.quantile(np.abs(error), 0.9) < 0.1
    # Each up to a factor that is the other's.
    assert np.std(found.albedo - albedo) < 0.08


def test_a_place_that_was_hardly_seen_has_no_colour(skin: Skin, monkeypatch: pytest.MonkeyPatch) -> None:
    normals, shown = _lit(np.random.default_rng(3), 10, LIGHT)
    weight = np.ones((10, 500))
    weight[1:, :50] = 0

    def sampled(skin: object, identity: object, clip: PosedClip, blur: float, use: Callable) -> object:
        for index in range(len(clip.frames)):
            values = np.stack((shown[index],) * 3, 1)
            yield use(
                index,
                SimpleNamespace(sample=lambda values=values: values, normals=normals[index], weight=weight[index]),
            )

    monkeypatch.setattr(albedo_and_light, "sample_frames", sampled)

    def learned(frames: int) -> PersonAppearance:
        return learn_appearance(
            skin, torch.zeros(1), [PosedClip(None, None, np.arange(frames), None, np.ones(frames, bool))], 2.0
        )

    assert not learned(10).determined[:50].any() and learned(10).determined[50:].all()
    # Of a photograph one look must do.
    assert learned(1).determined.all()
