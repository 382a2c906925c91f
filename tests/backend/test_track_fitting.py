"""The fits of frames and of a person, on energies whose minimum is known."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from few_points import EXPRESSIONS, IDENTITIES, camera_of, state_of, surface_of, wide_bounds
from torch import Tensor

from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.model.camera import Camera, estimate_head_pose
from backend.tracking.model.frame_state import Bounds, FrameState, concatenate, joint_rotation_vectors
from backend.tracking.model.landmark_surface import pose_points
from backend.tracking.model.prediction import predict
from backend.tracking.solve import fit_frames as fit_frames_module
from backend.tracking.solve.block_systems import solve_independent
from backend.tracking.solve.fit_frames import fit_frames, fit_windows, free_parameters
from backend.tracking.solve.fit_person import (
    ClipFrames,
    Person,
    _covariance,
    _restricted,
    _SharedParameters,
    fit_person,
)
from backend.tracking.solve.initial_state import initial_state
from backend.tracking.solve.uncertainty import standard_deviations
from backend.tracking.terms.landmarks import LandmarkTerm
from backend.tracking.terms.priors import PriorTerm
from backend.tracking.terms.skin_patches import SkinPatchTerm
from backend.tracking.terms.smoothness import SmoothnessTerm
from backend.tracking.terms.term import NormalEquations, Term

pytestmark = pytest.mark.usefixtures("one_thread")

FACE = EXPRESSIONS + 7
POINTS = 24
"""Landmarks of a head of few points: more equations than a frame has parameters."""


def prior_around(mean: Tensor, precision: float = 4.0) -> PriorTerm:
    return PriorTerm(mean, torch.full((FACE,), precision).double(), torch.zeros(2).double())


@dataclass(frozen=True)
class Place(Term):
    """A quadratic energy of the translation alone."""

    per_frame = ("wanted",)
    wanted: Tensor

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        return 0.5 * 100 * ((state.translation - self.wanted) ** 2).sum(1)

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        gradient = torch.zeros(len(state), state.layout.size).double()
        gradient[:, state.layout.translation] = 100 * (state.translation - self.wanted)
        diagonal = torch.zeros(state.layout.size).double()
        diagonal[state.layout.translation] = 100
        return NormalEquations(self.energy(state, camera), gradient, torch.diag(diagonal).expand(len(state), -1, -1))


def test_frames_reach_the_minimum_within_their_bounds() -> None:
    state, camera = state_of(4), camera_of()
    mean = 0.5 * torch.randn(4, FACE, generator=torch.Generator().manual_seed(4)).double()
    bounds = replace(
        wide_bounds(state), lower=torch.full((FACE,), -0.3).double(), upper=torch.full((FACE,), 0.2).double()
    )
    fixed = bounds.fixed.clone()
    fixed[1] = True
    start = replace(state, face=state.face.clamp(-0.3, 0.2))
    terms = [prior_around(mean), Place(torch.full((4, 3), 0.4).double())]
    counted: list[int] = []
    found, equations = fit_frames(
        terms, camera, start, replace(bounds, fixed=fixed), iterations=4, held=1, on_iteration=counted.append
    )
    expected = mean.clamp(-0.3, 0.2)
    expected[:, 1], expected[0] = start.face[:, 1], start.face[0]
    torch.testing.assert_close(found.face, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.translation[1:], terms[1].wanted[1:], atol=1e-4, rtol=0)
    assert torch.equal(found.translation[0], start.translation[0]) and torch.equal(found.rotation[0], start.rotation[0])
    assert counted == [0, 1, 2, 3] and equations.gradient.shape == (4, state.layout.size)
    with pytest.raises(ValueError, match="at least one iteration"):
        fit_frames(terms, camera, start, bounds, iterations=0)


@dataclass(frozen=True)
class Misleading(Place):
    """Its equations overstate the step; the energy grows until steps are damped `overstated` times."""

    overstated: float = 1.0

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        found = super().normal_equations(state, camera)
        return replace(found, hessian=found.hessian / self.overstated)


def test_a_step_that_raises_the_energy_is_damped_and_given_up_after_six_tries() -> None:
    state, camera = state_of(1), camera_of()
    wanted = torch.full((1, 3), 0.4).double()
    near = replace(state, translation=wanted + 0.01)
    found, _ = fit_frames([Misleading(wanted, 6.0)], camera, near, wide_bounds(state), iterations=12)
    assert float((found.translation - wanted).abs().max()) < 1e-4
    # Damping goes from 1e-4 to ten at most: a step sixty times too long stays five times too long.
    stuck, _ = fit_frames([Misleading(wanted, 60.0)], camera, near, wide_bounds(state), iterations=12)
    assert torch.equal(stuck.translation, near.translation)
    tried, _ = fit_frames([Misleading(wanted, 20.0)], camera, near, wide_bounds(state), iterations=2)
    assert not torch.equal(tried.translation, near.translation)


def test_parameters_at_a_bound_are_free_only_away_from_it() -> None:
    state = state_of(1)
    state.face[0, :4] = torch.tensor((1.0, 1.0, -1.0, -1.0))
    bounds = Bounds(torch.full((FACE,), -1.0), torch.full((FACE,), 1.0), torch.zeros(FACE + 6, dtype=torch.bool))
    bounds.fixed[7] = True
    gradient = torch.ones(1, FACE + 6).double()
    gradient[0, (0, 2)] = -1
    free = free_parameters(state, gradient, bounds)[0]
    # Downhill of a negative gradient is up: 0 pushes past the upper bound, 3 past the lower.
    assert (~free).nonzero().flatten().tolist() == [0, 3, 7]


def test_independent_frames_are_solved_over_what_is_free() -> None:
    root = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1)).double()
    hessian, gradient = (
        root @ root.transpose(1, 2),
        torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).double(),
    )
    free = torch.tensor(((True, True, True, True), (True, False, True, True), (False, True, True, False)))
    step = solve_independent(hessian, gradient, free)
    for frame in range(3):
        keep = free[frame]
        expected = torch.zeros(4).double()
        expected[keep] = torch.linalg.solve(hessian[frame][keep][:, keep], -gradient[frame][keep])
        torch.testing.assert_close(step[frame], expected)


def walked(frames: int) -> tuple[list[Term], FrameState, Tensor]:
    """Heads that walk along x, started at rest, with smoothness over all of them."""
    state = state_of(1)[torch.zeros(frames, dtype=torch.long)]
    wanted = state.translation.clone()
    wanted[:, 0] += 0.1 * torch.sin(torch.arange(frames) / 3.0).double()
    precision = torch.full((FACE + 6,), 2.0).double()
    smooth = SmoothnessTerm(precision, torch.ones(frames - 1, dtype=torch.bool), torch.ones(frames, dtype=torch.bool))
    return [Place(wanted), prior_around(state.face), smooth], state, wanted


def test_windows_are_smooth_across_their_ends_and_held_out_frames_have_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    terms, state, _ = walked(40)
    options = {"training_count": 30, "iterations": 3}
    whole = fit_windows(terms, camera_of(), state, wide_bounds(state), **options).state
    monkeypatch.setattr(fit_frames_module, "WINDOW", 12)
    done: list[int] = []
    parts = fit_windows(
        terms, camera_of(), state, wide_bounds(state), on_frames=done.append, with_variances=True, **options
    )
    torch.testing.assert_close(parts.state.translation, whole.translation, atol=2e-3, rtol=0)
    # Windows: 12, 12 and 6 training frames, then the 10 that are held out, each counted by its three iterations.
    assert done == [0, 4, 8, 12, 16, 20, 24, 26, 28, 30, 33, 36, 40]
    assert parts.required_variances().shape == (40, FACE + 6)
    with pytest.raises(ValueError, match="without variances"):
        fit_windows(terms, camera_of(), state, wide_bounds(state), **options).required_variances()
    # The second window begins with the last two frames of the first, which stay, and looks 16 frames ahead.
    begin = concatenate([parts.state[10:12], state[12:30]])
    second, _ = fit_frames(
        [term[10:30] for term in terms], camera_of(), begin, wide_bounds(state), iterations=3, held=2
    )
    assert torch.equal(second.translation[2:14], parts.state.translation[12:24])
    far = replace(terms[0], wanted=terms[0].wanted.clone())
    far.wanted[30:] += 1
    other = fit_windows([far, *terms[1:]], camera_of(), state, wide_bounds(state), **options).state
    assert torch.equal(other.translation[:30], parts.state.translation[:30])
    assert float((other.translation[30:] - parts.state.translation[30:]).abs().min()) > 0.1


def test_a_frame_that_nothing_constrains_is_a_radian_and_a_third_of_a_metre_uncertain() -> None:
    terms, state, _ = walked(1)
    fitted = fit_windows(
        terms[1:], camera_of(), state, wide_bounds(state), training_count=1, iterations=1, with_variances=True
    )
    sigma = fitted.required_variances()[0].sqrt().tolist()
    assert sigma[FACE:] == pytest.approx([1, 1, 1, 0.3, 0.3, 0.3]) and sigma[:FACE] == pytest.approx([0.5] * FACE)


def clip_frames(frames: int, *, skin: bool = False, identity: Tensor | None = None, seed: int = 1) -> ClipFrames:
    """Frames of a person that are seen without errors, as the solver begins: as the mean person's."""
    surface = surface_of(np.arange(200, 200 + POINTS))
    camera, state = camera_of(), state_of(frames, seed)
    person = surface.of_person(torch.zeros(IDENTITIES).double() if identity is None else identity)
    detected = predict(person, state, camera)
    term = LandmarkTerm(
        surface,
        surface,
        FRONT.expand(POINTS, 3),
        detected,
        detected,
        torch.zeros(10, POINTS, 2).double(),
        torch.ones(frames, POINTS).double(),
        torch.zeros(frames, 0, 2).double(),
        torch.zeros(0, dtype=torch.long),
        torch.zeros(2, 0, dtype=torch.long),
    )
    patches = None
    if skin:
        own = surface_of(np.arange(4), seed=9)
        patches = SkinPatchTerm(
            own,
            own,
            predict(own, state, camera),
            torch.eye(2).expand(frames, 4, 2, 2).double(),
            torch.ones(frames, 4).double(),
            torch.eye(3).expand(4, 3, 3).double(),
        )
    prior = prior_around(state.face.clone(), 1e4)
    return ClipFrames(term, prior, wide_bounds(state), camera, state, patches)


FRONT = torch.tensor((0.0, 0.0, 1.0)).double()


def test_the_mean_persons_prior_counts_a_clip_as_one_frame_and_as_three_for_its_lens() -> None:
    common = _SharedParameters([clip_frames(6), clip_frames(2, seed=2)], None)
    # Eight frames in all; a lens of six frames that count as three, and one of two frames.
    expected = [8, 8, 2 / 0.3**2, 1 / 0.3**2]
    assert common.precision.diagonal().tolist() == pytest.approx(expected) and common.landmark_weight == 1
    assert common.prior_scale.tolist() == pytest.approx([8, 8, 2, 1])
    at = torch.tensor((0.3, -0.2, 6.0, 7.0))
    focal = np.log(900)
    offsets = np.array((0.3, -0.2, 6 - focal, 7 - focal))
    none = np.array((0, 0, focal, focal))
    energy = 0.5 * np.sum(expected * (offsets**2 - none**2))
    assert float(common.energy(at)) == pytest.approx(energy, rel=1e-4)
    assert common.gradient(at).tolist() == pytest.approx((expected * offsets).tolist(), rel=1e-3, abs=1e-2)
    assert common.initial.tolist() == pytest.approx([0, 0, focal, focal])
    assert [columns.tolist() for columns in common.columns] == [[0, 1, 2], [0, 1, 3]]


def test_with_skin_frames_count_as_six_and_the_head_keeps_its_size() -> None:
    clip = _single(clip_frames(12, skin=True))
    previous = Person(
        torch.tensor((0.5, -1.0)), torch.tensor((800.0,)), torch.zeros(4, 3), 0.01 * torch.eye(3).double()
    )
    common = _SharedParameters([clip], previous)
    assert common.landmark_weight == pytest.approx(1 / 12)
    assert common.prior_scale.tolist() == pytest.approx([2, 2, 1])
    diagonal = common.precision.diagonal().tolist()
    assert diagonal[2] == pytest.approx(0.03**-2, rel=1e-5)
    assert diagonal[3:] == pytest.approx([0.02**-2, 0.02**-2, 0.0015**-2] * 4, rel=1e-5)
    assert common.initial.tolist() == pytest.approx([0.5, -1.0, np.log(800), *[0] * 12])
    assert common.columns[0].tolist() == list(range(15))
    points = clip.skin.generic_surface.position
    rest = points.rest - points.rest.mean(0)
    # A step along which all points spread by one per cent costs (0.01 / 0.003)^2 / 2, and one that does not spread them
    # only its own prior.
    grown = torch.stack([(rest * (points.shape[..., k] - points.shape[..., k].mean(0))).sum() for k in range(2)])
    growth = grown / (rest**2).sum()
    still = torch.tensor((growth[1], -growth[0])).float() / growth.norm().float()
    spread = (0.01 * growth / growth.square().sum()).float()
    base = common.initial

    def costs(step: Tensor) -> float:
        at = base.clone()
        at[:2] += step
        own = 0.5 * 2 * float((at[:2] ** 2).sum() - (base[:2] ** 2).sum())
        return float(common.energy(at.double()) - common.energy(base.double())) - own

    common.precision, common._precision_mean = common.precision.double(), common._precision_mean.double()
    assert costs(still) == pytest.approx(0, abs=1e-2)
    assert costs(spread) == pytest.approx(0.5 * (0.01 / 0.003) ** 2, rel=1e-2)


def test_the_covariance_takes_back_how_often_frames_were_counted() -> None:
    common = _SharedParameters([clip_frames(6), clip_frames(2, seed=2)], None)
    reduced = torch.diag(torch.tensor((4.0, 5.0, 10.0, 20.0))).double()
    found = _covariance(reduced, common, None)
    # Eight frames count as one, six as three; a lens keeps its bias of 15 %.
    expected = [8 / 4, 8 / 5, 2 / 10 + 0.15**2, 1 / 20 + 0.15**2]
    assert found.diagonal().tolist() == pytest.approx(expected) and found.shape == (4, 4)
    previous = Person(torch.zeros(2), torch.tensor((800.0, 900.0)), torch.zeros(0, 3), 0.01 * torch.eye(4).double())
    again = _covariance(reduced, common, previous)
    assert again.diagonal().tolist()[2:] == pytest.approx([2 / 10 + 0.01, 1 / 20 + 0.01])
    person = Person(torch.zeros(2), torch.tensor((800.0, 900.0)), torch.zeros(0, 3), found)
    assert person.covariance_of(1).diagonal().tolist() == pytest.approx([2, 1.6, 1 / 20 + 0.15**2])
    assert person.focal_sigma(1) == pytest.approx((1 / 20 + 0.15**2) ** 0.5) and person.focal_sigma(0) == 0.3


def test_what_is_not_free_is_decoupled_and_the_rest_damped() -> None:
    root = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(1)).double()
    hessian, free = root @ root.transpose(1, 2), torch.tensor([[True, False, True]])
    cross, gradient = torch.ones(1, 3, 2), torch.ones(1, 3)
    blocks, own_cross, own_gradient = _restricted(hessian, cross, gradient, free, 0.5)
    expected = hessian[0].clone()
    expected[1], expected[:, 1] = 0, 0
    expected += torch.diag(torch.tensor((0.5, 0, 0.5)).double() * hessian[0].diagonal())
    expected += torch.diag(torch.tensor((1e-3, 1.0, 1e-3)).double())
    torch.testing.assert_close(blocks[0], expected)
    assert own_gradient.tolist() == [[1, 0, 1]] and own_cross.tolist() == [[[1, 1], [0, 0], [1, 1]]]


def test_a_person_that_is_seen_without_errors_is_found() -> None:
    identity = torch.tensor((0.2, -0.15)).double()
    clips = [clip_frames(8, identity=identity), clip_frames(4, identity=identity, seed=2)]
    counted: list[int] = []
    person, states = fit_person([_single(clip) for clip in clips], 10, counted.append)
    assert counted[:3] == [0, 1, 2]
    torch.testing.assert_close(person.identity.double(), identity, atol=0.03, rtol=0)
    torch.testing.assert_close(person.focals.double(), torch.full((2,), 900.0).double(), atol=30.0, rtol=0)
    assert [len(state) for state in states] == [8, 4] and person.patch_offsets.shape == (0, 3)
    for clip, state in zip(clips, states, strict=True):
        torch.testing.assert_close(state.translation[:, :2].double(), clip.state.translation[:, :2], atol=0.01, rtol=0)


def _single(clip: ClipFrames) -> ClipFrames:
    """The same in float32, as a clip is fitted."""

    def single(value: object) -> object:
        if isinstance(value, Tensor):
            return value.float() if value.is_floating_point() else value
        if is_dataclass(value):
            return replace(value, **{field.name: single(getattr(value, field.name)) for field in fields(value)})
        return value

    return single(clip)


def test_frames_without_a_face_begin_as_the_nearest_that_has_one() -> None:
    clip = clip_frames(7)
    term, state = clip.landmarks, state_of(7)
    weights = term.weights.clone()
    weights[[1, 3, 4, 6]] = 0
    mean = torch.randn(7, FACE, generator=torch.Generator().manual_seed(1)).double()
    matrices = axis_angle_to_matrix(joint_rotation_vectors(mean))
    points = pose_points(term.surface, mean[:, :EXPRESSIONS], matrices)[0] - clip.camera.pivot
    in_camera = points @ state.rotation.transpose(1, 2) + state.translation[:, None]
    middle = state.translation[:, None, 2:]
    detected = torch.cat((clip.camera.project(in_camera), (in_camera[..., 2:] - middle) * 900 / middle), -1)
    term = replace(term, weights=weights)
    found = initial_state(term, prior_around(mean), detected, clip.camera, torch.arange(7), training_count=5)
    turned = (found.rotation.double() @ state.rotation.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum(1)
    for frame in (0, 2, 5):
        assert float(turned[frame]) > 1 + 2 * np.cos(np.radians(12)), "in perspective the alignment is not exact"
        torch.testing.assert_close(found.translation[frame].double(), state.translation[frame], atol=0.06, rtol=0)
    # Of two that are as near, the earlier; frames 0 to 4 are training frames, so 4 does not take from 5.
    for frame, source in ((1, 0), (3, 2), (4, 2), (6, 5)):
        assert torch.equal(found.face[frame], mean[source]) and torch.equal(
            found.translation[frame], found.translation[source]
        )
        assert torch.equal(found.rotation[frame], found.rotation[source])
    assert torch.equal(found.face[2], mean[2])
    some = initial_state(term, prior_around(mean), detected, clip.camera, torch.tensor((2, 4, 5)), training_count=5)
    assert torch.equal(some.face[1], mean[2]) and torch.equal(some.translation[0], found.translation[2])
    nobody = initial_state(
        replace(term, weights=0 * weights), prior_around(mean), detected, clip.camera, torch.arange(7), 5
    )
    assert torch.equal(nobody.face, mean) and bool(nobody.translation.isfinite().all())


def test_a_head_pose_is_that_of_the_landmarks_that_weigh() -> None:
    """Far away, where a head is seen without perspective, the alignment is exact."""
    generator = torch.Generator().manual_seed(3)
    points = 0.1 * torch.randn(2, 9, 3, generator=generator).double()
    state, camera = state_of(2), camera_of(focal=1e6)
    place = torch.tensor(((0.5, -0.2, 1000.0), (-0.3, 0.1, 1100.0))).double()
    in_camera = points @ state.rotation.transpose(1, 2) + place[:, None]
    depth = (in_camera[..., 2:] - place[:, None, 2:]) * (camera.focal / place[:, None, 2:])
    detected = torch.cat((camera.project(in_camera), depth), -1)
    weights = torch.ones(2, 9).double()
    weights[:, 5] = 0
    detected[:, 5] += 300
    rotation, translation = estimate_head_pose(points, detected, weights, camera)
    torch.testing.assert_close(rotation.double(), state.rotation, atol=1e-3, rtol=0)
    torch.testing.assert_close(translation.double(), place, atol=1e-3, rtol=1e-3)
    lost, _ = estimate_head_pose(points, detected, 0 * weights, camera)
    assert bool(lost.isfinite().all())


@pytest.mark.parametrize("frames", (9, 17))
def test_the_influence_of_the_shared_parameters_is_that_of_every_frame_between_those_computed(frames: int) -> None:
    clip = clip_frames(frames)
    state, camera = clip.state, clip.camera
    term, prior = clip.landmarks, prior_around(torch.zeros(frames, FACE).double(), 2000.0)
    bounds = replace(clip.bounds, fixed=clip.bounds.fixed.clone())
    bounds.fixed[2] = True
    root = 0.05 * torch.randn(IDENTITIES + 1, 5, generator=torch.Generator().manual_seed(8)).double()
    shared = root @ root.T
    own = torch.full((frames, FACE + 6), 0.01).double()
    found = standard_deviations(own, shared, term, prior, bounds, state, camera)

    equations = term.normal_equations(state, camera, shared=True)
    by_shared = torch.zeros(frames, FACE + 6).double()
    keep = ~bounds.fixed
    for frame in range(frames):
        hessian = (equations.hessian[frame] + prior.hessian())[keep][:, keep]
        moved = torch.linalg.solve(hessian, equations.required_shared().cross[frame][keep])
        moved[-1, -1] -= state.translation[frame, 2]
        by_shared[frame, keep] = torch.einsum("pk,kl,pl->p", moved, shared, moved)
    # Every eighth frame is computed: 0, 8 and 16; the others lie on lines between them.
    at, last = torch.arange(frames) / 8.0, (frames - 1) // 8 - 1
    low, part = at.floor().long().clamp(max=last) * 8, (at - at.floor().clamp(max=last)).unsqueeze(1)
    between = torch.lerp(by_shared[low], by_shared[low + 8], part.double())
    expected = (own + between).sqrt()
    expected[:, EXPRESSIONS + 3 : FACE] *= 2.5
    expected[:, FACE:] *= 2.0
    expected[:, 2] = 0
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=1e-6)


def noisy(clip: ClipFrames, pixels: float, seed: int = 5) -> ClipFrames:
    noise = pixels * torch.randn(clip.landmarks.detected.shape, generator=torch.Generator().manual_seed(seed)).double()
    moved = clip.landmarks.detected + noise
    return _single(replace(clip, landmarks=replace(clip.landmarks, detected=moved, unbiased=moved)))


def misplaced(clip: ClipFrames) -> ClipFrames:
    """The same, with heads that begin two centimetres beside their places."""
    return replace(clip, state=replace(clip.state, translation=clip.state.translation + 0.02))


def test_the_first_step_places_heads_and_leaves_faces_and_the_person() -> None:
    identity = torch.tensor((0.2, -0.15)).double()
    clips = [misplaced(noisy(clip_frames(6, identity=identity), 0.5))]
    person, states = fit_person(clips, 1)
    assert float(person.identity.abs().max()) < 1e-6 and float(person.focals[0]) == pytest.approx(900, rel=1e-6)
    assert torch.equal(states[0].expression, clips[0].state.expression)
    assert not torch.equal(states[0].face, clips[0].state.face), "jaw and eyes move"
    moved = (states[0].translation - clips[0].state.translation).abs()
    assert float(moved.max()) > 0.01
    # Until something was learned of the person, their covariance is the prior's.
    expected = torch.tensor((1.0, 1.0, 0.3**2 + 0.15**2)).double()
    torch.testing.assert_close(person.covariance.diagonal(), expected, rtol=1e-4, atol=0)
    again, _ = fit_person(clips, 1, previous=person)
    assert float(again.identity.abs().min()) > 0.01, "from a known person on, everything moves at once"


@pytest.mark.parametrize(("known", "scales"), ((False, [12, 12, 8, 5, 4, 3]), (True, [8, 5, 4, 3, 3])))
def test_a_person_is_fitted_ever_more_robustly_until_it_hardly_improves(
    known: bool, scales: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, reweighted = [], LandmarkTerm.reweighted

    def watched(self: LandmarkTerm, state: FrameState, camera: Camera, scale: float) -> LandmarkTerm:
        seen.append(scale)
        return reweighted(self, state, camera, scale)

    monkeypatch.setattr(LandmarkTerm, "reweighted", watched)
    identity = torch.tensor((0.9, -0.8)).double()
    clips = [misplaced(noisy(clip_frames(12, identity=identity), 2.0))]
    previous = Person(torch.zeros(2), torch.tensor([900.0]), torch.zeros(0, 3), torch.eye(3).double())
    counted: list[int] = []
    fit_person(clips, 60, counted.append, previous if known else None)
    assert seen[: len(scales)] == scales and counted == list(range(len(seen)))
    assert 6 <= len(seen) <= 7, "no iterations that gain nothing"


def test_of_a_clip_without_a_face_only_the_distance_follows_the_lens() -> None:
    clip = clip_frames(3)
    term = replace(clip.landmarks, weights=0 * clip.landmarks.weights)
    shared = torch.diag(torch.tensor((0.0, 0.0, 0.1**2))).double()
    own = torch.full((3, FACE + 6), 0.01).double()
    prior = prior_around(torch.zeros(3, FACE).double(), 1.0)
    found = standard_deviations(own, shared, term, prior, clip.bounds, clip.state, clip.camera)
    distance = clip.state.translation[:, 2]
    torch.testing.assert_close(found[:, -1].double(), 2 * (0.01 + (0.1 * distance) ** 2).sqrt(), rtol=1e-2, atol=0)
    torch.testing.assert_close(found[:, :EXPRESSIONS].double(), torch.full((3, EXPRESSIONS), 0.1).double())
