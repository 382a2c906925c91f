"""Skin patches are registered where the image shows them, with honest precisions and exact derivatives."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rendered_person import landmark_term, paint, rendered, true_state

from backend.formats.capture import read_frame
from backend.head.formats import load_head
from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.model.camera import Camera
from backend.tracking.model.frame_state import Bounds, FrameState
from backend.tracking.model.landmark_surface import LandmarkSurface, LinearBasis, landmark_surface
from backend.tracking.model.prediction import predict
from backend.tracking.observe.albedo_and_light import PersonAppearance, learn_appearance
from backend.tracking.observe.skin_samples import PosedClip, Skin, make_skin
from backend.tracking.terms.skin_patches import PATCH_SIGMA, SkinPatchTerm, register_patches
from backend.tracking.terms.term import ROBUST_SCALE

pytestmark = pytest.mark.usefixtures("one_thread")

BLUR = 2.0


@dataclass(frozen=True)
class Known:
    skin: Skin
    appearance: PersonAppearance
    posed: PosedClip
    identity: torch.Tensor
    found: SkinPatchTerm

    def again(self, folder: Path, change: object, expected: PersonAppearance | None = None) -> SkinPatchTerm:
        """What is found when `change` was made to each of the pictures."""
        capture = replace(self.posed.capture, folder=folder)
        (folder / "frames").mkdir(parents=True)
        (folder / "mattes").symlink_to(self.posed.capture.folder / "mattes")
        for index in range(capture.frame_count):
            paint(capture, index, change(read_frame(self.posed.capture, index)))
        posed = replace(self.posed, capture=capture)
        return register_patches(self.skin, expected or self.appearance, 0, posed, self.identity)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Seven pictures of a head that is where the truth has it, and what the person looks like in them."""
    made = rendered(tmp_path_factory.mktemp("patches") / "person.capture", frames=7, yaw=30.0, still=True)
    skin, identity = make_skin(load_head()), torch.as_tensor(made.truth.identity)
    _, camera = landmark_term(made)
    posed = PosedClip(made.capture, true_state(made.truth, camera.pivot), np.arange(7), camera, np.ones(7, bool))
    appearance = learn_appearance(skin, identity, [posed], BLUR)
    return Known(skin, appearance, posed, identity, register_patches(skin, appearance, 0, posed, identity))


def _precision(found: SkinPatchTerm) -> torch.Tensor:
    """(F, K, 2) of what a patch says along the direction it knows worse, and along the other; per pixel squared."""
    return found.weights[..., None] * torch.linalg.eigvalsh(found.roots.transpose(2, 3) @ found.roots)


def test_skin_under_a_true_track_is_found_where_it_is(known: Known) -> None:
    centres = predict(known.skin.centres.of_person(known.identity), known.posed.state, known.posed.camera)
    sure = _precision(known.found)[..., 0] > 1
    assert sure.sum() > 25
    assert float((known.found.detected - centres).norm(dim=-1)[sure].median()) < 0.6
    assert float(_precision(known.found).max()) <= PATCH_SIGMA**-2 * 1.001


def test_a_picture_that_is_shifted_by_fractions_of_a_pixel_is_found_shifted(known: Known, tmp_path: Path) -> None:
    shift = np.array((1.3, -0.7))
    moved = known.again(
        tmp_path / "moved",
        lambda picture: cv2.warpAffine(
            picture,
            np.array(((1, 0, shift[0]), (0, 1, shift[1]))),
            picture.shape[:2],
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        ),
    )
    error = moved.detected - known.found.detected - torch.as_tensor(shift, dtype=torch.float32)
    # Along an edge nobody sees a shift; so only along directions in which a patch knows where it is.
    along = torch.linalg.eigh(known.found.roots.transpose(2, 3) @ known.found.roots).eigenvectors.transpose(2, 3)
    sure = _precision(known.found) > 1
    assert sure.sum() > 150
    distance = (along @ error.unsqueeze(-1)).squeeze(-1).abs()[sure]
    assert float(distance.median()) < 0.13
    assert float(distance.quantile(0.75)) < 0.3
    both = sure.all(-1)
    assert float(error[both].median(0).values.abs().max()) < 0.12


def test_a_darker_picture_moves_no_patch(known: Known, tmp_path: Path) -> None:
    def dimmed(picture: np.ndarray) -> np.ndarray:
        return (picture * 0.8 ** (1 / 2.2)).round().astype(np.uint8)

    darker = known.again(tmp_path / "darker", dimmed)
    sure = _precision(known.found)[..., 0] > 1
    moved = (darker.detected - known.found.detected).norm(dim=-1)[sure]
    assert float(moved.median()) < 0.1 and float(moved.quantile(0.9)) < 0.3
    assert float((darker.weights - known.found.weights)[sure].abs().median()) < 0.05


def test_what_the_light_does_not_explain_of_a_whole_patch_moves_it_not_at_all(known: Known) -> None:
    offsets = np.random.default_rng(0).normal(0, 0.3, known.skin.patch.max() + 1)[known.skin.patch]
    expected = replace(known.appearance, albedo=known.appearance.albedo + offsets.astype(np.float32))
    found = register_patches(known.skin, expected, 0, known.posed, known.identity)
    there = known.found.weights > 0.05
    assert torch.allclose(found.detected[there], known.found.detected[there], atol=0.01)
    assert torch.allclose(found.weights, known.found.weights, atol=1e-3)


def test_bare_skin_claims_to_know_nothing(known: Known, tmp_path: Path) -> None:
    def bare(picture: np.ndarray) -> np.ndarray:
        return (150 + np.random.default_rng(0).normal(0, 2, picture.shape)).round().astype(np.uint8)

    def learned(folder: Path) -> PersonAppearance:
        (folder / "frames").mkdir(parents=True)
        (folder / "mattes").symlink_to(known.posed.capture.folder / "mattes")
        capture = replace(known.posed.capture, folder=folder)
        for index in range(capture.frame_count):
            paint(capture, index, bare(read_frame(known.posed.capture, index)))
        return learn_appearance(known.skin, known.identity, [replace(known.posed, capture=capture)], BLUR)

    found = known.again(tmp_path / "bare", bare, learned(tmp_path / "learned"))
    assert float(_precision(found).max()) < 0.03
    assert float(_precision(known.found)[known.found.weights > 0.5][:, 1].median()) > 0.3


def test_what_is_painted_over_is_not_believed(known: Known, tmp_path: Path) -> None:
    stripes = 128 + 80 * np.sign(np.sin(np.arange(512) / 5))[:, None] * np.ones((1, 512))

    def covered(picture: np.ndarray) -> np.ndarray:
        result = picture.copy()
        result[280:] = stripes[280:, :, None].astype(np.uint8)
        return result

    found = known.again(tmp_path / "covered", covered)
    below, above = (known.found.detected[..., 1] > 300), (known.found.detected[..., 1] < 235)
    trusted = known.found.weights > 0.3
    assert (trusted & below).sum() > 40 and (trusted & above).sum() > 40
    assert float(found.weights[trusted & below].mean()) < 0.25 * float(known.found.weights[trusted & below].mean())
    # The rest is as it was, but for its being compressed once more.
    assert float((found.weights - known.found.weights)[trusted & above].abs().quantile(0.95)) < 0.05


def test_in_a_frame_without_a_face_no_skin_is_found(known: Known) -> None:
    face_found = np.arange(7) != 2
    found = register_patches(
        known.skin, known.appearance, 0, replace(known.posed, face_found=face_found), known.identity
    )
    assert not found.weights[2].any() and not found.roots[2].any()
    assert torch.equal(found.weights[3], known.found.weights[3]) and found.weights[3].any()


def _double(surface: LandmarkSurface) -> LandmarkSurface:
    def linear(part: LinearBasis) -> LinearBasis:
        return LinearBasis(*(getattr(part, field.name).double() for field in fields(LinearBasis)))

    return replace(
        surface,
        position=linear(surface.position),
        lever=linear(surface.lever),
        skin_weight=surface.skin_weight.double(),
    )


@dataclass(frozen=True)
class Posed:
    patches: SkinPatchTerm
    """Not yet of a person."""
    state: FrameState
    camera: Camera
    identity: torch.Tensor
    offsets: torch.Tensor

    @property
    def person(self) -> SkinPatchTerm:
        return self.patches.of_person(self.identity, self.offsets)

    def energy(
        self,
        state: FrameState | None = None,
        identity: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
        focal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The patches' energy (F,), with some of what it depends on replaced."""
        camera = self.camera if focal is None else self.camera.with_focal(focal)
        person = self.patches.of_person(
            self.identity if identity is None else identity, self.offsets if offsets is None else offsets
        )
        return person.energy(self.state if state is None else state, camera)


@pytest.fixture(scope="module")
def posed(known: Known) -> Posed:
    """Nine points of skin in four frames, in float64, errors of up to some standard deviations."""
    generator = torch.Generator().manual_seed(1)
    rows = np.array((1, 17, 151, 199, 205, 61, 4, 425, 18))
    surface = _double(landmark_surface(load_head()).of_points(rows))
    jaw = surface.joint_index == 0
    assert jaw.any() and 0 < float(surface.skin_weight[jaw].min()) < 0.9
    given = known.posed.camera
    camera = Camera(given.focal.double(), given.centre.double(), given.pivot.double(), given.pixel)
    size = surface.position.expression.shape[-1]
    face = torch.cat(
        (torch.rand(4, size, generator=generator) * 0.5, torch.randn(4, 7, generator=generator) * 0.2), 1
    ).double()
    turn = axis_angle_to_matrix(torch.randn(4, 3, generator=generator).double() * 0.3)
    rotation = turn @ torch.diag(torch.tensor((1.0, -1, -1))).double()
    state = FrameState(face, rotation, torch.tensor((0.01, -0.02, 0.6)).double().expand(4, 3))
    identity = torch.randn(surface.position.shape.shape[-1], generator=generator).double() * 0.5
    offsets = torch.randn(9, 3, generator=generator).double() * 0.002
    bases = torch.linalg.qr(torch.randn(9, 3, 3, generator=generator).double())[0]
    roots = torch.randn(4, 9, 2, 2, generator=generator).double() * 0.7
    weights = torch.rand(4, 9, generator=generator).double()
    patches = SkinPatchTerm(surface, surface, torch.zeros(4, 9, 2).double(), roots, weights, bases)
    pixels = predict(patches.of_person(identity, offsets).surface, state, camera)
    patches = replace(patches, detected=pixels + torch.randn(pixels.shape, generator=generator).double() * 2)
    return Posed(patches, state, camera, identity, offsets)


def _wide_bounds(state: FrameState) -> Bounds:
    bound = torch.full((state.face.shape[1],), 99.0).double()
    return Bounds(-bound, bound, torch.zeros(state.layout.size, dtype=torch.bool))


def _slope(function: object, size: int, step: float) -> torch.Tensor:
    """(..., size) central differences of a function of a vector."""
    unit = torch.eye(size).double() * step
    return torch.stack([(function(row) - function(-row)) / (2 * step) for row in unit], -1)


def test_the_gradient_of_everything_is_the_energys(posed: Posed) -> None:
    normal = posed.person.normal_equations(posed.state, posed.camera, shared=True)
    torch.testing.assert_close(normal.energy, posed.energy())
    bounds = _wide_bounds(posed.state)
    count, shapes = normal.gradient.shape[1], len(posed.identity)
    own = _slope(lambda step: posed.energy(posed.state.updated(step.expand(4, -1), bounds)), count, 1e-5)
    torch.testing.assert_close(normal.gradient, own, rtol=1e-3, atol=1e-5 * float(own.abs().max()))
    shared = torch.cat(
        (
            _slope(lambda step: posed.energy(identity=posed.identity + step).sum(), shapes, 1e-5),
            _slope(
                lambda step: posed.energy(
                    posed.state.dolly_zoomed(step.exp().squeeze()), focal=(posed.camera.focal * step.exp()).squeeze()
                ).sum(),
                1,
                1e-6,
            ),
            _slope(lambda step: posed.energy(offsets=posed.offsets + step.unflatten(0, (9, 3))).sum(), 27, 1e-6),
        )
    )
    assert normal.shared.gradient.shape == (shapes + 1 + 27,)
    torch.testing.assert_close(normal.shared.gradient, shared, rtol=1e-4, atol=1e-6 * float(shared.abs().max()))


def test_the_hessian_is_made_of_the_same_rows(posed: Posed) -> None:
    """Gauss-Newton's, by one dense Jacobian of the whitened errors over everything."""
    person = posed.person
    normal = person.normal_equations(posed.state, posed.camera, shared=True)
    bounds = _wide_bounds(posed.state)

    def pixels(state: FrameState, identity: torch.Tensor, focal: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        surface = posed.patches.of_person(identity, offsets).surface
        return predict(surface, state, posed.camera.with_focal(focal.squeeze()))

    def all_of(step: torch.Tensor) -> torch.Tensor:
        own, identity, focal, offsets = step.split((normal.gradient.shape[1], len(posed.identity), 1, 27))
        return pixels(
            posed.state.updated(own.expand(4, -1), bounds).dolly_zoomed(focal.exp().squeeze()),
            posed.identity + identity,
            posed.camera.focal * focal.exp(),
            posed.offsets + offsets.unflatten(0, (9, 3)),
        )

    size = normal.gradient.shape[1]
    everything = size + normal.shared.gradient.shape[0]
    error = (person.roots @ (all_of(torch.zeros(everything).double()) - person.detected).unsqueeze(-1)).squeeze(-1)
    weight = person.weights * (ROBUST_SCALE**2 / (ROBUST_SCALE**2 + (error**2).sum(-1))) ** 2
    rows = ((weight.sqrt()[..., None, None] * person.roots) @ _slope(all_of, everything, 1e-6)).flatten(1, 2)
    dense = rows.transpose(1, 2) @ rows
    for found, expected in (
        (normal.hessian, dense[:, :size, :size]),
        (normal.shared.cross, dense[:, :size, size:]),
        (normal.shared.hessian, dense[:, size:, size:].sum(0)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_frames_alone_and_frames_with_what_they_share_have_the_same_equations(posed: Posed) -> None:
    person = posed.person
    normal = person.normal_equations(posed.state, posed.camera, shared=True)
    alone = person.normal_equations(posed.state, posed.camera)
    assert torch.allclose(alone.gradient, normal.gradient) and torch.allclose(alone.hessian, normal.hessian)
    part = slice(1, 3)
    torch.testing.assert_close(person[part].energy(posed.state[part], posed.camera), normal.energy[part])


def test_shared_blocks_are_widened_with_zeros_and_added(posed: Posed) -> None:
    normal = posed.person.normal_equations(posed.state, posed.camera, shared=True)
    size = len(normal.shared.gradient)
    wide = normal.shared.widened(5)
    assert wide.gradient.shape == (size + 5,) and wide.hessian.shape == (size + 5, size + 5)
    assert wide.cross.shape == (*normal.shared.cross.shape[:2], size + 5)
    for padded, whole in (
        (wide.gradient[:size], wide.gradient),
        (wide.hessian[:size, :size], wide.hessian),
        (wide.cross[..., :size], wide.cross),
    ):
        assert float(padded.abs().sum()) == pytest.approx(float(whole.abs().sum()))
    assert torch.equal(wide.gradient[:size], normal.shared.gradient)
    assert torch.equal(wide.hessian[:size, :size], normal.shared.hessian)
    assert torch.equal(wide.cross[..., :size], normal.shared.cross)

    twice = normal + normal
    for name in ("energy", "gradient", "hessian"):
        assert torch.equal(getattr(twice, name), 2 * getattr(normal, name)), name
    for name in ("gradient", "hessian", "cross"):
        assert torch.equal(getattr(twice.shared, name), 2 * getattr(normal.shared, name)), name
    narrow = replace(
        normal,
        shared=replace(
            normal.shared,
            **{
                name: getattr(normal.shared, name)[(..., *(slice(size - 3),) * times)]
                for name, times in (("gradient", 1), ("hessian", 2), ("cross", 1))
            },
        ),
    )
    assert torch.equal((narrow + normal).shared.gradient[-3:], normal.shared.gradient[-3:])
    assert torch.equal((normal + narrow).shared.gradient[:-3], 2 * normal.shared.gradient[:-3])
    alone = replace(normal, shared=None)
    assert (alone + alone).shared is None and (alone + normal).shared is normal.shared
