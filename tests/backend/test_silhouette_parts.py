"""The silhouette on mattes and shells whose outlines are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from few_points import camera_of, differences, wide_bounds

from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.model.frame_state import FrameState
from backend.tracking.model.hair_shell import HairShell
from backend.tracking.observe import silhouette_detection
from backend.tracking.observe.silhouette_detection import Silhouette, detect_silhouette
from backend.tracking.solve import fit_hair_shell as fit_hair_shell_module
from backend.tracking.solve.fit_hair_shell import fit_hair_shell
from backend.tracking.terms import silhouette as silhouette_module
from backend.tracking.terms.silhouette import SilhouetteTerm, find_rim

pytestmark = pytest.mark.usefixtures("one_thread")

RAYS = 96
ANGLES = np.arange(RAYS) * 2 * np.pi / RAYS
FACE = 10


def heads(frames: int, roll: float = 0.0) -> FrameState:
    """Upright heads 60 cm away, rolled by `roll` radians clockwise in the picture."""
    turn = axis_angle_to_matrix(torch.tensor((0.0, 0.0, roll)).double())
    rotation = turn @ torch.diag(torch.tensor((1.0, -1.0, -1.0))).double()
    place = torch.tensor((0.0, 0.0, 0.6)).double().expand(frames, 3)
    return FrameState(torch.zeros(frames, FACE).double(), rotation.expand(frames, 3, 3), place)


def detected(
    monkeypatch: pytest.MonkeyPatch, shape: object, *, roll: float = 0.0, found: bool = True, size: int = 512
) -> tuple[Silhouette, np.ndarray]:
    """The silhouette of a person whose matte is `shape(x, y)` in [0, 1] of pixels at 512, and the skull's centre."""
    y, x = (np.mgrid[:256, :256] + 0.5) * 2
    matte = (255 * np.clip(shape(x, y), 0, 1)).round().astype(np.uint8)
    monkeypatch.setattr(silhouette_detection, "read_matte", lambda capture, frame, side: matte)
    state, camera = heads(1, roll), camera_of(900.0 * size / 512, size / 512)
    camera = replace(camera, centre=torch.tensor((250.0, 260.0)).double() * size / 512)
    state = FrameState(*(part.float() for part in vars(state).values()))
    camera = replace(camera, focal=camera.focal.float(), centre=camera.centre.float())
    silhouette = detect_silhouette(SimpleNamespace(size=size), state, camera, torch.tensor([found]))
    # The skull's centre lies 2 cm above and 8 cm behind the pivot.
    up = np.array((np.sin(roll), -np.cos(roll)))
    expected = np.array((250, 260)) * size / 512 + 900 * size / 512 * 0.02 * up / 0.68
    np.testing.assert_allclose(silhouette.centres[0].numpy(), expected, atol=0.02)
    return silhouette, expected


def disc(x: np.ndarray, y: np.ndarray, radius: float = 150.0, across: float = 250.0, down: float = 233.5) -> np.ndarray:
    return (radius - np.hypot(x - across, y - down)) / 4 + 0.5


@pytest.mark.parametrize("size", (512, 1024))
def test_a_round_head_is_found_on_every_ray_that_is_not_below(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    silhouette, centre = detected(monkeypatch, disc, size=size)
    factor = size / 512
    directions = np.stack((np.cos(ANGLES), np.sin(ANGLES)), 1)
    expected = centre + 150 * factor * directions
    np.testing.assert_allclose(silhouette.points[0].numpy(), expected, atol=0.8 * factor)
    np.testing.assert_allclose(silhouette.normals[0].numpy(), directions, atol=0.02)
    from_crown = np.degrees(np.abs((ANGLES + np.pi / 2 + np.pi) % (2 * np.pi) - np.pi))
    assert silhouette.weights[0].tolist() == (from_crown < 112).astype(float).tolist()


def test_the_rays_that_count_follow_the_crown(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = np.radians(45)
    middle = np.array((250, 260)) + 900 * 0.02 * np.array((np.sin(turn), -np.cos(turn))) / 0.68
    silhouette, _ = detected(monkeypatch, lambda x, y: disc(x, y, 150, *middle), roll=turn)
    from_crown = np.degrees(np.abs((ANGLES + np.pi / 2 - turn + np.pi) % (2 * np.pi) - np.pi))
    assert silhouette.weights[0].tolist() == (from_crown < 112).astype(float).tolist()


def test_without_a_face_or_an_edge_no_ray_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not detected(monkeypatch, disc, found=False)[0].weights.any()
    # 0.2 m are 265 pixels: an edge beyond is not searched.
    assert not detected(monkeypatch, lambda x, y: np.ones_like(x))[0].weights.any()


def test_holes_within_five_centimetres_are_head(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_hole(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(np.hypot(x - 250, y - 233.5) < 60, 0, disc(x, y))

    whole, holed = (detected(monkeypatch, shape)[0] for shape in (disc, with_hole))
    assert torch.equal(whole.points, holed.points) and torch.equal(whole.weights, holed.weights)

    def with_large_hole(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(np.hypot(x - 250, y - 233.5) < 75, 0, disc(x, y))

    assert not torch.equal(detected(monkeypatch, with_large_hole)[0].points, whole.points)


def test_an_edge_at_the_border_of_the_picture_or_along_the_ray_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where((x > 6) & (y > 6), disc(x, y, 245), 0)

    points, weights = (
        part[0].numpy() for part in (detected(monkeypatch, cut)[0].points, detected(monkeypatch, cut)[0].weights)
    )
    near = (points < 0.012 * 512).any(1) | (points > 0.988 * 512).any(1)
    assert near.any() and not weights[near].any()

    def stepped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """A disc that is larger on the right of its crown."""
        return np.where(x > 250, disc(x, y, 170), disc(x, y, 120))

    weights = detected(monkeypatch, stepped)[0].weights[0].numpy()
    crown = round(RAYS * 3 / 4)
    assert not weights[crown - 1 : crown + 1].all() and weights[crown - 8 : crown - 3].all()
    assert weights[crown + 3 : crown + 8].all()


def shell_of(count: int = 400, radius: float = 0.1) -> HairShell:
    """A ball around the skull's centre, with four coarse offsets: left, right, up and down."""
    random = np.random.default_rng(0)
    normals = random.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals = torch.as_tensor(normals)
    sides = torch.stack((normals[:, 0], -normals[:, 0], normals[:, 1], -normals[:, 1]), 1).clamp_min(0)
    interpolation = sides / sides.sum(1, keepdim=True)
    centre = torch.tensor((0.0, 0.02, -0.08)).double()
    return HairShell(
        centre + radius * normals, normals, interpolation, 1e4 * torch.eye(4).double(), torch.zeros(4).double()
    )


def outline(frames: int, radii: np.ndarray) -> Silhouette:
    """Circles around the skull's centre, of a radius for each ray."""
    camera, state = camera_of(), heads(frames)
    centre = camera.project(torch.tensor((0.0, -0.02, 0.68)).double())
    directions = torch.as_tensor(np.stack((np.cos(ANGLES), np.sin(ANGLES)), 1))
    points = centre + torch.as_tensor(radii)[:, None] * directions
    return Silhouette(
        points.expand(frames, RAYS, 2),
        directions.expand(frames, RAYS, 2),
        centre.expand(len(state), 2),
        torch.ones(frames, RAYS).double(),
    )


def test_a_rim_point_reaches_farthest_along_its_rays_normal_of_those_near_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silhouette_module, "_CHUNK", 2)
    shell, camera, state = shell_of(), camera_of(), heads(3)
    state = replace(state, rotation=state.rotation @ axis_angle_to_matrix(torch.eye(3).double() * 0.3))
    silhouette = outline(3, np.full(RAYS, 150.0))
    found = find_rim(silhouette, shell, state, camera)
    for frame in range(3):
        in_camera = shell.points @ state.rotation[frame].T + state.translation[frame]
        offset = (camera.project(in_camera) - silhouette.centres[frame]).numpy()
        angles = np.arctan2(offset[:, 1], offset[:, 0])
        for ray in range(RAYS):
            away = np.abs((angles - ANGLES[ray] + np.pi) % (2 * np.pi) - np.pi)
            reach = np.where(away < 0.09, offset @ silhouette.normals[frame, ray].numpy(), -np.inf)
            assert int(found[frame, ray]) == (int(reach.argmax()) if np.isfinite(reach).any() else 0)


def test_a_rim_point_costs_its_distance_in_four_pixels_along_the_normal() -> None:
    shell, camera = shell_of(), camera_of()
    state = heads(2)
    state = replace(state, translation=state.translation + torch.tensor(((0.003, -0.002, 0.01), (0.0, 0.004, 0.0))))
    silhouette = outline(2, 140 + 10 * np.sin(3 * ANGLES))
    weights = torch.rand(2, RAYS, generator=torch.Generator().manual_seed(3)).double()
    term = SilhouetteTerm.unmatched(replace(silhouette, weights=weights), shell).reweighted(state, camera, 99.0)
    rim = shell.points[term.rim_index]
    error = (
        camera.project(rim @ state.rotation.transpose(1, 2) + state.translation[:, None]) - silhouette.points
    ) / 4.0
    squared = (error * silhouette.normals).sum(-1) ** 2
    torch.testing.assert_close(term.energy(state, camera), 0.5 * (weights * squared * 9 / (9 + squared)).sum(1))
    bounds = wide_bounds(state)
    slopes = differences(lambda step: term.energy(state.updated(step.expand(2, -1), bounds), camera), FACE + 6)
    found = term.normal_equations(state, camera)
    torch.testing.assert_close(found.gradient, slopes, rtol=1e-4, atol=1e-5 * float(slopes.abs().max()))
    torch.testing.assert_close(found.energy, term.energy(state, camera))
    rows = differences(lambda step: term.residual(state.updated(step.expand(2, -1), bounds), camera)[0], FACE + 6)
    weight = weights * (9 / (9 + squared)) ** 2
    torch.testing.assert_close(found.hessian, torch.einsum("fkp,fk,fkq->fpq", rows, weight, rows), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", (3, 24))
def test_each_of_five_steps_of_the_shell_solves_its_normal_equations(
    frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, camera, state = shell_of(), camera_of(), heads(frames)
    shell = replace(shell, offsets=torch.tensor((0.01, -0.005, 0.02, 0.0)).double())
    silhouette = outline(frames, np.where(np.sin(ANGLES) < 0, 165.0, 132.0))
    single_shell, single, single_state = (
        type(each)(*(part.float() for part in vars(each).values())) for each in (shell, silhouette, state)
    )
    lens = replace(camera, focal=camera.focal.float(), centre=camera.centre.float(), pivot=camera.pivot.float())
    found = fit_hair_shell(single_shell, single, single_state, lens, iterations=1)
    term = SilhouetteTerm.unmatched(silhouette, shell).reweighted(state, camera, 3.0)

    def residual(step: torch.Tensor) -> torch.Tensor:
        moved = replace(shell, offsets=shell.offsets + step)
        return replace(term, rim=moved.points[term.rim_index]).residual(state, camera)[0].flatten()

    error, rows = residual(torch.zeros(4).double()), differences(residual, 4)
    weight = (9 / (9 + error**2)) ** 2
    # Many frames err alike, and count as twelve.
    share = min(1.0, 12 / frames)
    hessian = share * rows.T @ (weight[:, None] * rows) + shell.precision
    gradient = share * rows.T @ (weight * error) + shell.precision @ shell.offsets
    expected = shell.offsets - torch.linalg.solve(hessian, gradient)
    torch.testing.assert_close(found.offsets.double(), expected, rtol=1e-3, atol=1e-5)
    assert float((expected - shell.offsets).abs().max()) > 1e-3
    again = single_shell
    for _ in range(5):
        again = fit_hair_shell(again, single, single_state, lens, iterations=1)
    torch.testing.assert_close(fit_hair_shell(single_shell, single, single_state, lens).offsets, again.offsets)
    rounds: list[int] = []
    monkeypatch.setattr(fit_hair_shell_module, "fit_hair_shell", lambda shell, *_: rounds.append(1) or shell)
    monkeypatch.setattr(
        fit_hair_shell_module,
        "fit_frames",
        lambda terms, camera, state, bounds, *, iterations: (state, rounds.append(iterations)),
    )
    fit_hair_shell_module.fit_shell_and_poses([], silhouette, shell, state, camera, wide_bounds(state))
    assert rounds == [1, 3, 1, 3, 1], "shell and poses in turn, the shell last"
