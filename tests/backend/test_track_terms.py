"""Every energy term against values computed by hand and against finite differences, on a head of a few points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from few_points import EXPRESSIONS, IDENTITIES, camera_of, differences, state_of, surface_of, wide_bounds
from torch import Tensor

from backend.correspondence.landmark_sets import LEFT_IRIS, RIGHT_IRIS
from backend.footage.detector import SCORE_NAMES
from backend.head.formats import load_head
from backend.tracking.model.frame_state import FrameState, eye_occlusion
from backend.tracking.model.prediction import predict
from backend.tracking.observe.iris_detection import DetectedIrises
from backend.tracking.terms import landmarks as landmarks_module
from backend.tracking.terms.contact import ContactTerm
from backend.tracking.terms.iris import IrisTerm
from backend.tracking.terms.landmarks import LandmarkTerm
from backend.tracking.terms.priors import PriorTerm, priors_for
from backend.tracking.terms.smoothness import SmoothnessTerm
from backend.tracking.terms.temporal_coupling import TemporalCoupling
from backend.tracking.terms.term import NormalEquations, SharedBlocks, Term, robust, total_energy, total_equations

pytestmark = pytest.mark.usefixtures("one_thread")

NOSE, CHIN, JAW, UPPER_LIP, LOWER_LIP = 4, 152, 172, 13, 14


def test_an_error_of_the_robust_scale_has_half_its_energy_and_a_quarter_of_its_weight() -> None:
    energy, weight = robust(torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), torch.tensor([[2.0, 7.0]]), 5.0)
    assert energy.tolist() == [0.5 * 2 * 25 / 2] and weight.tolist() == [[2 / 4, 7]]
    energy, weight = robust(torch.tensor([[[1.0], [30.0]]]), torch.tensor([[1.0, 1.0]]), 10.0)
    assert float(energy) == pytest.approx(0.5 * (100 / 101 + 900 * 100 / 1000))
    assert weight[0].tolist() == pytest.approx([(100 / 101) ** 2, 0.1**2])


def landmark_term(frames: int, state: FrameState, pixel: float = 1.0) -> LandmarkTerm:
    """Five landmarks a few pixels beside their points; two are a pair, two lie on the jaw line."""
    surface = surface_of([NOSE, CHIN, JAW, UPPER_LIP, LOWER_LIP])
    generator = torch.Generator().manual_seed(2)
    pixels = predict(surface, state, camera_of(pixel=pixel))
    detected = pixels + 3 * torch.randn(pixels.shape, generator=generator).double()
    normals = torch.randn(frames, 2, 2, generator=generator).double()
    return LandmarkTerm(
        generic_surface=surface,
        surface=surface,
        view_directions=torch.nn.functional.normalize(torch.randn(5, 3, generator=generator).double(), dim=-1),
        detected=detected,
        unbiased=detected,
        bias=torch.zeros(10, 5, 2).double(),
        weights=torch.rand(frames, 5, generator=generator).double() + 0.2,
        across=normals / normals.norm(dim=-1, keepdim=True),
        jaw_line=torch.tensor((1, 2)),
        pairs=torch.tensor(((3,), (4,))),
    )


def test_a_landmark_errs_by_three_and_a_half_pixels_and_a_pair_by_one_and_a_half() -> None:
    """At 512; of a frame of 1024 pixels, where the errors are twice as large."""
    state, camera = state_of(1), camera_of(pixel=2.0)
    term = landmark_term(1, state, pixel=2.0)
    errors = torch.tensor(((6.0, 8.0), (3.0, 1.0), (-2.0, 5.0), (1.0, 0.0), (0.0, 2.0))).double()
    weights = torch.tensor(((1.0, 0.5, 2.0, 0.8, 0.6),)).double()
    across = torch.tensor((((1.0, 0.0), (0.6, 0.8)),)).double()
    term = replace(term, unbiased=predict(term.surface, state, camera) - errors, weights=weights, across=across)
    # Along the jaw line nothing is compared; a pair weighs half of the lighter of its landmarks.
    squares = np.array((100.0, 9.0, (-1.2 + 4.0) ** 2, 1.0, 4.0)) / (2 * 3.5) ** 2
    squares = np.append(squares, (1 + 4) / (2 * 1.5) ** 2)
    expected = 0.5 * np.array((1, 0.5, 2, 0.8, 0.6, 0.3)) * squares * 25 / (25 + squares)
    assert float(term.energy(state, camera)) == pytest.approx(expected.sum())
    assert float(term.normal_equations(state, camera).energy) == pytest.approx(expected.sum())


def check_derivatives(term: Term, state: FrameState, camera: object, *, quadratic: bool = False) -> None:
    """A term's gradient against differences of its energy; a quadratic one's Hessian against those of its gradient."""
    bounds, frames = wide_bounds(state), len(state)

    def energies(step: Tensor) -> Tensor:
        return term.energy(state.updated(step.expand(frames, -1), bounds), camera)

    found = term.normal_equations(state, camera)
    slopes = differences(energies, state.layout.size)
    torch.testing.assert_close(found.energy, term.energy(state, camera))
    torch.testing.assert_close(found.gradient, slopes, rtol=1e-4, atol=1e-6 * float(slopes.abs().max()))
    if quadratic:

        def gradients(step: Tensor) -> Tensor:
            return term.normal_equations(state.updated(step.expand(frames, -1), bounds), camera).gradient

        torch.testing.assert_close(found.hessian, differences(gradients, state.layout.size), rtol=1e-6, atol=1e-6)


def test_the_landmarks_gradients_are_their_energys() -> None:
    frames, camera = 3, camera_of()
    state = state_of(frames)
    term = landmark_term(frames, state)
    check_derivatives(term, state, camera)
    found = term.normal_equations(state, camera, shared=True)

    def by_shared(step: Tensor) -> Tensor:
        zoom = step[-1].exp()
        person = term.of_person(step[:-1])
        return person.energy(state.dolly_zoomed(zoom), camera.with_focal(camera.focal * zoom)).sum()

    slopes = differences(by_shared, IDENTITIES + 1)
    torch.testing.assert_close(found.required_shared().gradient, slopes, rtol=1e-5, atol=1e-6)


def test_the_landmarks_blocks_are_those_of_their_whitened_rows() -> None:
    frames, camera = 2, camera_of()
    state = state_of(frames)
    term, bounds = landmark_term(frames, state), wide_bounds(state)
    size = state.layout.size

    def residuals(step: Tensor) -> Tensor:
        zoom = step[-1].exp()
        moved = state.updated(step[:size].expand(frames, -1), bounds).dolly_zoomed(zoom)
        person = term.of_person(step[size:-1])
        through = camera.with_focal(camera.focal * zoom)
        return person._residuals(predict(person.surface, moved, through), camera.pixel)[0]

    error, weight = term._residuals(predict(term.surface, state, camera), camera.pixel)
    _, weight = robust(error, weight, 5.0)
    rows = differences(residuals, size + IDENTITIES + 1) * weight.sqrt()[..., None, None]
    rows = rows.flatten(1, 2)
    dense = rows.transpose(1, 2) @ rows
    found = term.normal_equations(state, camera, shared=True)
    shared = found.required_shared()
    for block, expected in (
        (found.hessian, dense[:, :size, :size]),
        (shared.cross, dense[:, :size, size:]),
        (shared.hessian, dense[:, size:, size:].sum(0)),
    ):
        torch.testing.assert_close(block, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_frames_in_pieces_have_the_equations_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state, camera = state_of(9), camera_of()
    term = landmark_term(9, state)
    whole, energy = term.normal_equations(state, camera, shared=True), term.energy(state, camera)
    monkeypatch.setattr(landmarks_module, "_CHUNK", 2)
    pieces = term.normal_equations(state, camera, shared=True)
    torch.testing.assert_close(term.energy(state, camera), energy)
    torch.testing.assert_close(pieces.energy, energy)
    for part in ("gradient", "hessian"):
        torch.testing.assert_close(getattr(pieces, part), getattr(whole, part))
    for part in ("gradient", "hessian", "cross"):
        torch.testing.assert_close(getattr(pieces.required_shared(), part), getattr(whole.required_shared(), part))


def test_the_normals_of_a_round_jaw_point_at_its_middle() -> None:
    from backend.correspondence.landmark_sets import JAW_LINE

    surface = surface_of([JAW_LINE[3], NOSE, JAW_LINE[10], UPPER_LIP, LOWER_LIP])
    landmarks = np.zeros((2, 478, 3), np.float32)
    angles = np.linspace(0, np.pi, len(JAW_LINE))
    landmarks[0, JAW_LINE, :2] = 200 + 80 * np.stack((np.cos(angles), np.sin(angles)), 1)
    landmarks[0, NOSE] = 7, 9, 11
    landmarks[1] = np.nan
    term = LandmarkTerm.from_detections(landmarks, surface, camera_of())
    for row, index in enumerate((3, 10)):
        radial = np.array((np.cos(angles[index]), np.sin(angles[index])))
        assert abs(term.across[0, row].double().numpy() @ radial) == pytest.approx(1, abs=1e-4)
    assert term.jaw_line.tolist() == [0, 2] and term.pairs.tolist() == [[3], [4]]
    assert term.detected[0, 1].tolist() == [7, 9] and not term.detected[1].any() and not term.across[1].any()
    # Lips count twice as much as skin and the jaw line.
    assert term.weights.tolist() == [[1, 1, 1, 2, 2], [0, 0, 0, 0, 0]]
    assert term.bias.shape == (10, 5, 2) and torch.equal(term.unbiased, term.detected)


def test_the_detectors_bias_and_a_persons_own_are_subtracted_at_the_heads_place() -> None:
    from backend.tracking.detector.pose_bias import bias_in_pixels

    state, camera = state_of(2), camera_of()
    term = landmark_term(2, state)
    own = 0.01 * torch.randn(10, 5, 2, generator=torch.Generator().manual_seed(5)).double()
    everybody = 0.01 * torch.ones(10, 5, 2).double()
    term = replace(term, bias=everybody).with_person_bias(own).scaled(3.0)
    current = term.reweighted(state, camera, 4.0)
    origin = state.translation - torch.einsum("fij,j->fi", state.rotation, camera.pivot)
    expected = term.detected - bias_in_pixels(everybody + own, state.rotation, origin, camera.focal)
    torch.testing.assert_close(current.unbiased, expected)
    assert current.robust_scale == 4.0 and torch.equal(term.weights, 3 * landmark_term(2, state).weights)
    again = current.weights / term.weights
    torch.testing.assert_close(
        again, landmarks_module.view_weights(term.view_directions, term.jaw_line, state).to(again)
    )


def prior_term(frames: int) -> PriorTerm:
    generator = torch.Generator().manual_seed(3)
    drawn = (torch.randn(*shape, generator=generator).double() for shape in ((frames, EXPRESSIONS + 7),))
    (mean,) = drawn
    precision = torch.rand(EXPRESSIONS + 7, generator=generator).double() + 0.5
    return PriorTerm(mean, precision, torch.tensor((3.0, 5.0)).double())


def test_a_prior_pulls_to_its_mean_and_the_eyes_to_each_other() -> None:
    state, camera = state_of(2), camera_of()
    term = prior_term(2)
    check_derivatives(term, state, camera, quadratic=True)
    face = state.face[0]
    apart = face[EXPRESSIONS + 3 : EXPRESSIONS + 5] - face[EXPRESSIONS + 5 :]
    expected = 0.5 * (term.precision * (face - term.mean[0]) ** 2).sum() + 0.5 * (3 * apart[0] ** 2 + 5 * apart[1] ** 2)
    assert float(term.energy(state, camera)[0]) == pytest.approx(float(expected))
    assert torch.equal(PriorTerm.concatenated([term[:1], term[1:]]).mean, term.mean)


def test_the_prior_of_named_shapes_is_around_the_detectors_scores() -> None:
    model, degree = load_head(), np.pi / 180
    names = model.expression_names
    scores = np.full((2, len(SCORE_NAMES)), 0.5)
    scores[1] = np.nan
    priors = priors_for(model, scores, SCORE_NAMES, 30.0)
    size = len(names)
    sigma = dict(zip(names, priors.precision[:size] ** -0.5, strict=True))
    for name, expected in (
        ("eyeBlinkLeft", 0.2),
        ("eyeLookUpRight", 0.15),
        ("cheekPuff", 0.15),
        ("tongueOut", 0.02),
        ("noseSneerLeft", 0.2),
        ("mouthSmileLeft", 0.25),
    ):
        assert sigma[name] == pytest.approx(expected, rel=1e-5), name
    np.testing.assert_allclose(priors.precision[size:] ** -0.5, np.array((6, 3, 2, 12, 15, 12, 15)) * degree, rtol=1e-5)
    np.testing.assert_allclose(priors.vergence_precision**-0.5, np.array((1.5, 4)) * degree, rtol=1e-5)
    bend = dict(zip(names, priors.acceleration_precision[:size] ** -0.5, strict=True))
    for name, expected in (
        ("eyeBlinkLeft", 0.4),
        ("eyeLookInLeft", 0.1),
        ("eyeSquintLeft", 0.1),
        ("eyeWideLeft", 0.1),
        ("mouthSmileLeft", 0.12),
        ("browInnerUp", 0.06),
        ("cheekPuff", 0.04),
        ("noseSneerRight", 0.04),
        ("tongueOut", 0.02),
        ("jawForward", 0.1),
    ):
        assert bend[name] == pytest.approx(expected, rel=1e-5), name
    joints = np.array((1.5, 0.5, 0.2, 5, 5, 5, 5, 0.2, 0.2, 0.2)) * degree
    np.testing.assert_allclose(
        priors.acceleration_precision[size:] ** -0.5, (*joints, 0.00024, 0.00024, 0.0008), rtol=1e-5
    )
    upper = dict(zip(names, priors.upper[:size], strict=True))
    assert upper["browInnerUp"] == np.float32(1.6) and upper["mouthSmileLeft"] == 1 and not priors.lower[:size].any()
    assert priors.lower[size:] == pytest.approx(np.radians((-2, -10, -8, -35, -45, -35, -45)), rel=1e-6)
    assert priors.upper[size:] == pytest.approx(np.radians((40, 10, 8, 35, 45, 35, 45)), rel=1e-6)
    mean = dict(zip(names, priors.mean[0, :size], strict=True))
    held = {name for name, fixed in zip(names, priors.fixed[:size], strict=True) if fixed}
    assert held == {"jawOpen", "jawLeft", "jawRight"} and not priors.fixed[size:].any()
    assert all(mean[name] == (0 if name in held else 0.5) for name in names)
    # The jaw's shapes are given to its joint, half of each.
    from backend.head.jaw import jaw_rotations_of_shapes

    half = 0.5 * sum(jaw_rotations_of_shapes(model).values())
    np.testing.assert_allclose(priors.mean[0, size : size + 3], half, atol=1e-6)
    assert not priors.mean[1].any(), "a frame without a face has a neutral mean"


def test_unnamed_components_without_correspondence_have_the_size_of_their_scans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from backend.errors import EffigyError
    from backend.tracking.terms import priors as module

    model = load_head()
    count = model.expression_basis.shape[2]
    unnamed = replace(model, expression_names=tuple(f"component {i}" for i in range(count)))
    scores = np.full((2, len(SCORE_NAMES)), 0.5)

    def unknown(_: object) -> None:
        raise EffigyError("no correspondence")

    monkeypatch.setattr(module, "arkit_map", unknown)
    priors = priors_for(unnamed, scores, SCORE_NAMES, 30.0)
    assert not priors.mean[:, :count].any() and not priors.fixed.any()
    np.testing.assert_allclose(priors.precision[:count], 1)
    np.testing.assert_allclose(priors.acceleration_precision[:count] ** -0.5, 0.3, rtol=1e-5)
    assert (priors.lower[:count] == np.float32(unnamed.expression_range[0])).all()
    assert (priors.upper[:count] == np.float32(unnamed.expression_range[1])).all()


def test_closed_gaps_are_pulled_to_contact_by_a_third_of_a_millimetre() -> None:
    from backend.tracking.observe.gap_closure import GAP_PAIRS

    points = np.unique(np.concatenate(GAP_PAIRS))
    surface = surface_of(points[::-1], dtype=torch.float32)
    rest = surface.position.rest.clone()
    row = {point: index for index, point in enumerate(surface.points)}
    still = replace(
        surface,
        position=replace(surface.position, rest=rest, expression=0 * surface.position.expression),
        lever=replace(surface.lever, rest=0 * surface.lever.rest, expression=0 * surface.lever.expression),
        joint_index=torch.full_like(surface.joint_index, 3),
    )
    for part, gap in enumerate((0.002, -0.003, 0.0)):
        for upper, lower in GAP_PAIRS[part]:
            rest[row[upper], 1], rest[row[lower], 1] = 0.01 + gap, 0.01
    closed = np.array(((0.5, 1.0, 1.0), (0.0, 1.0, 1.0)))
    term = ContactTerm.from_closure(still, closed)
    state = FrameState(torch.zeros(2, EXPRESSIONS + 7), torch.eye(3).expand(2, 3, 3), torch.ones(2, 3))
    # A closed upper lid lies a millimetre below the lower one; lips touch as they do at rest.
    torch.testing.assert_close(
        term.openings(state), torch.tensor(((0.003, -0.002, 0.0),) * 2).to(term.openings(state)), atol=1e-8, rtol=0
    )
    assert term.energy(state, camera_of()).tolist() == pytest.approx([0.5 * 0.5 * (0.003 / 0.0003) ** 2, 0], rel=1e-4)
    missing = replace(still, valid=still.valid & (still.points != GAP_PAIRS[1][0, 0]))
    assert ContactTerm.from_closure(missing, closed) is None


def test_the_gradient_of_contact_is_its_energys_on_points_that_joints_move() -> None:
    from backend.tracking.observe.gap_closure import GAP_PAIRS

    points = np.unique(np.concatenate(GAP_PAIRS))
    closed = np.array(((0.5, 1.0, 0.2), (0.3, 0.9, 1.0)))
    term = ContactTerm.from_closure(surface_of(points, dtype=torch.float32), closed)
    weights, gaps = (part.double() for part in (term.gap_weights, term.contact_gap))
    term = ContactTerm(surface_of(points), weights, gaps, torch.as_tensor(closed))
    check_derivatives(term, state_of(2), camera_of())


def smoothness(frames: int, linked: list[bool] | None = None, **more: object) -> SmoothnessTerm:
    precision = torch.rand(EXPRESSIONS + 13, generator=torch.Generator().manual_seed(6)).double() + 0.5
    return SmoothnessTerm(
        precision,
        torch.tensor(linked or [True] * (frames - 1), dtype=torch.bool),
        torch.ones(frames, dtype=torch.bool),
        **more,
    )


def test_smoothness_is_of_second_differences_within_a_shot() -> None:
    state, camera = state_of(6), camera_of()
    term = smoothness(6, [True, True, False, True, True])
    velocity = state.velocity()
    bend = 0.5 * (term.precision * (velocity[1:] - velocity[:-1]) ** 2).sum(1)
    zero = torch.zeros(1).double()
    expected = torch.cat((zero, bend[:1], zero, zero, bend[3:], zero))
    torch.testing.assert_close(term.energy(state, camera), expected)
    found = term.normal_equations(state, camera)
    torch.testing.assert_close(found.energy, expected)
    assert not found.hessian.any() and found.coupling is not None
    # For the face, whose differences are plain, the gradient is exact, over all frames.
    size = state.layout.face_size

    def moved(step: Tensor) -> Tensor:
        face = state.face + step.unflatten(0, (6, size))
        return term.energy(replace(state, face=face), camera).sum()

    slopes = differences(moved, 6 * size).unflatten(0, (6, size))
    torch.testing.assert_close(found.gradient[:, state.layout.face], slopes, rtol=1e-6, atol=1e-8)


def test_a_head_that_accelerates_is_smoothed_less_by_cauchys_function() -> None:
    frames, camera = 9, camera_of()
    state = state_of(1)[torch.zeros(frames, dtype=torch.long)]
    place = state.translation.clone()
    place[4, 0] += 20.0  # one frame stands out: accelerations of 20, -40 and 20
    state = replace(state, translation=place)
    term = smoothness(frames)
    weights = term.reweighted(state, camera, 99.0).current_coupling().triples
    sent = np.zeros(frames - 2)
    sent[2:5] = 20, -40, 20
    averaged = np.convolve(sent, np.array((1, 2, 3, 2, 1)) / 9, "same")
    pose = state.layout.pose
    squared = float(term.precision[pose][3]) * averaged**2 / 6
    expected = 1 / (1 + squared / 4.0**2)
    np.testing.assert_allclose(weights[:, pose], np.repeat(expected[:, None], 6, 1), rtol=1e-6)
    assert (weights[:, : pose.start] == 1).all(), "the face is smoothed as before"
    assert 0.05 < weights[:, pose].min() < 0.9


def test_where_no_face_was_found_only_the_poses_variance_is_relaxed() -> None:
    state = state_of(1)[torch.zeros(6, dtype=torch.long)]
    found = torch.tensor((True, True, True, True, False, True))
    term = replace(smoothness(6), face_found=found, relax_unobserved=True)
    weights = term.reweighted(state, camera_of(), 3.0).current_coupling().triples
    pose = state.layout.pose
    assert (weights[:, : pose.start] == 1).all()
    assert weights[:, pose.start].tolist() == [1, 1, 1 / 16, 1 / 16]


def test_across_a_cut_no_acceleration_is_measured() -> None:
    state = state_of(7)
    linked = [True, True, False, True, True, True]
    apart = smoothness(7, linked).reweighted(state, camera_of(), 3.0).current_coupling()
    jumped = replace(state, translation=state.translation + torch.tensor([0, 0, 0, 5, 5, 5, 5.0])[:, None])
    torch.testing.assert_close(
        smoothness(7, linked).reweighted(jumped, camera_of(), 3.0).coupling.triples, apart.triples
    )
    assert apart.triples[1:3].abs().max() == 0 and apart.triples[0].min() > 0


def test_smoothness_of_a_slice_is_that_of_its_frames_alone() -> None:
    state, camera = state_of(6), camera_of()
    term = smoothness(6, [True, True, False, True, True])
    part = term[2:6]
    assert part.linked.tolist() == [False, True, True] and len(part.face_found) == 4
    torch.testing.assert_close(part.energy(state[2:6], camera)[2], term.energy(state, camera)[4])
    assert len(term[3:3].linked) == 0 and len(term[5:6].linked) == 0
    with pytest.raises(TypeError, match="consecutive"):
        term[torch.tensor((1, 3))]
    for frames in (1, 2):
        few = smoothness(frames).reweighted(state[:frames], camera, 3.0)
        assert few.energy(state[:frames], camera).tolist() == [0.0] * frames


def test_a_coupling_is_a_matrix_of_squared_second_differences() -> None:
    linked = torch.tensor((True, True, True, False, True, True))
    precision = torch.tensor((2.0, 0.5)).double()
    weights = torch.rand(5, 2, generator=torch.Generator().manual_seed(8)).double()
    coupling = TemporalCoupling(precision, linked, weights)
    dense = torch.zeros(2, 7, 7).double()
    for middle in range(1, 6):
        if linked[middle - 1] and linked[middle]:
            bend = torch.zeros(7).double()
            bend[middle - 1 : middle + 2] = torch.tensor((1.0, -2.0, 1.0)).double()
            dense += (precision * weights[middle - 1])[:, None, None] * torch.outer(bend, bend)
    vector = torch.randn(7, 2, generator=torch.Generator().manual_seed(9)).double()
    torch.testing.assert_close(coupling.times(vector), torch.einsum("pij,jp->ip", dense, vector))
    torch.testing.assert_close(coupling.diagonal, dense.diagonal(dim1=1, dim2=2).T)
    total = 0.5 * torch.einsum("ip,pij,jp->", vector, dense, vector)
    torch.testing.assert_close(coupling.energy(vector.diff(dim=0)).sum(), total)


def iris_term(state: FrameState, camera: object) -> IrisTerm:
    surface = surface_of(np.arange(6))
    centres = predict(surface, state, camera)[:, ::3].numpy()
    generator = np.random.default_rng(4)
    roots = generator.normal(0, 0.5, (len(state), 2, 2, 2))
    found = generator.uniform(0, 1, (len(state), 2))
    irises = DetectedIrises(centres + generator.normal(0, 2, centres.shape), roots, found)
    term = IrisTerm.from_detection(surface, irises, torch.device("cpu"))
    return replace(term, centres=term.centres.double(), roots=term.roots.double())


def test_an_iris_costs_its_error_in_standard_deviations_robustly() -> None:
    state, camera = state_of(2), camera_of()
    term = iris_term(state, camera)
    check_derivatives(term, state, camera)
    error = predict(surface_of(np.arange(6)), state, camera)[:, ::3] - term.centres
    squared = (torch.einsum("feij,fej->fei", term.roots, error) ** 2).sum(-1)
    torch.testing.assert_close(term.energy(state, camera), 0.5 * (squared * 9 / (9 + squared)).sum(1))


def test_a_measured_iris_replaces_its_own_landmarks_by_its_share() -> None:
    state, camera = state_of(2), camera_of()
    points = [NOSE, LEFT_IRIS[0], RIGHT_IRIS[2], LEFT_IRIS[4], CHIN]
    landmarks = replace(landmark_term(2, state), surface=surface_of(points), weights=torch.ones(2, 5))
    term = replace(iris_term(state, camera), found=torch.tensor(((0.2, 1.0), (0.5, 0.0))))
    torch.testing.assert_close(
        term.replace_landmarks(landmarks).weights, torch.tensor(((1, 0.8, 0, 0.8, 1), (1, 0.5, 1, 0.5, 1)))
    )
    assert (landmarks.weights == 1).all()


def test_the_farther_eye_hides_between_the_sines_of_two_angles() -> None:
    def yawed(sine: float) -> FrameState:
        angle = torch.asin(torch.tensor(sine)).double()
        turn = torch.linalg.matrix_exp(angle * torch.tensor(((0.0, 0, 1), (0, 0, 0), (-1, 0, 0))).double())
        facing = torch.diag(torch.tensor((1.0, -1, -1))).double()
        return FrameState(torch.zeros(1, 10), (facing @ turn)[None], torch.tensor([[0.0, 0, 0.7]]).double())

    # Looking to the person's left, the left eye is the farther one.
    for sine, hidden in ((0.44, 0.0), (0.55, 0.5), (0.66, 1.0)):
        assert eye_occlusion(yawed(sine))[0].tolist() == pytest.approx([hidden, 0], abs=1e-6)
        assert eye_occlusion(yawed(-sine))[0].tolist() == pytest.approx([0, hidden], abs=1e-6)


def equations(frames: int, shared: int | None, seed: int) -> NormalEquations:
    generator = torch.Generator().manual_seed(seed)
    rows, errors, energy = (
        torch.randn(*shape, generator=generator).double() for shape in ((frames, 4, 3), (frames, 4), (frames,))
    )
    own = None if shared is None else torch.randn(frames, 4, shared, generator=generator).double()
    return NormalEquations.of_rows(rows, errors, energy, own)


def test_consecutive_frames_are_joined_and_their_shared_blocks_summed() -> None:
    first, second = equations(2, 2, 1), equations(3, 2, 2)
    both = NormalEquations.concatenated([first, second])
    for name in ("energy", "gradient", "hessian"):
        assert torch.equal(getattr(both, name), torch.cat((getattr(first, name), getattr(second, name))))
    shared = both.required_shared()
    assert torch.equal(shared.gradient, first.shared.gradient + second.shared.gradient)
    assert torch.equal(shared.hessian, first.shared.hessian + second.shared.hessian)
    assert torch.equal(shared.cross, torch.cat((first.shared.cross, second.shared.cross)))
    without = NormalEquations.concatenated([equations(2, None, 1), equations(1, None, 2)])
    assert without.shared is None and len(without.energy) == 3
    with pytest.raises(ValueError, match="without their shared blocks"):
        without.required_shared()


def test_a_sum_of_equations_keeps_the_coupling_of_either() -> None:
    coupling = TemporalCoupling(torch.ones(3).double(), torch.ones(1, dtype=torch.bool))
    plain, coupled = equations(2, None, 1), replace(equations(2, None, 2), coupling=coupling)
    assert (plain + coupled).coupling is coupling and (coupled + plain).coupling is coupling
    assert (plain + plain).coupling is None
    assert isinstance((plain + equations(2, 2, 3)).shared, SharedBlocks)


def test_the_total_of_terms_is_the_sum_of_each() -> None:
    state, camera = state_of(3), camera_of()
    terms: list[Term] = [landmark_term(3, state), prior_term(3), smoothness(3)]
    energies = sum(term.energy(state, camera).sum() for term in terms)
    torch.testing.assert_close(total_energy(terms, state, camera), energies)
    total = total_equations(terms, state, camera, shared=True)
    each = [term.normal_equations(state, camera, shared=True) for term in terms]
    torch.testing.assert_close(total.gradient, sum(part.gradient for part in each))
    torch.testing.assert_close(total.hessian, sum(part.hessian for part in each))
    torch.testing.assert_close(total.required_shared().cross, each[0].required_shared().cross)
    assert total_equations(terms, state, camera).shared is None and total.coupling is not None
