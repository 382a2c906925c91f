"""Patches of skin are found where the picture shows them, claim no more than they know, and pull as their energy says."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rendered_person import paint, rendered, seen_by, true_state

from backend.formats.capture import read_frame
from backend.head.formats import load_head
from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.model.frame_state import FrameState, predict
from backend.tracking.model.landmark_surface import LandmarkSurface, Linear, landmark_surface
from backend.tracking.observe.albedo_and_light import Appearance, Lit, learn_appearance
from backend.tracking.observe.skin_samples import Skin, make_skin
from backend.tracking.terms.landmarks import Normal
from backend.tracking.terms.skin_patches import HALVING, PATCH_SIGMA, Patches, find_patches

pytestmark = pytest.mark.usefixtures("one_thread")

BLUR = 2.0


@dataclass(frozen=True)
class Known:
    skin: Skin
    appearance: Appearance
    lit: Lit
    identity: torch.Tensor
    found: Patches

    def again(self, folder: Path, change: object, expected: Appearance | None = None) -> Patches:
        """What is found when `change` was made to each of the pictures."""
        capture = replace(self.lit.capture, folder=folder)
        (folder / "frames").mkdir(parents=True)
        (folder / "mattes").symlink_to(self.lit.capture.folder / "mattes")
        for index in range(capture.frame_count):
            paint(capture, index, change(read_frame(self.lit.capture, index)))
        return find_patches(
            self.skin, expected or self.appearance, 0, replace(self.lit, capture=capture), self.identity
        )


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Seven pictures of a head that is where the truth has it, and what the person looks like in them."""
    made = rendered(tmp_path_factory.mktemp("patches") / "person.capture", frames=7, yaw=30.0, still=True)
    skin, identity = make_skin(load_head()), torch.as_tensor(made.truth.identity)
    _, evidence = seen_by(made)
    lit = Lit(made.capture, true_state(made.truth, evidence.pivot), np.arange(7), evidence)
    appearance = learn_appearance(skin, identity, [lit], BLUR)
    return Known(skin, appearance, lit, identity, find_patches(skin, appearance, 0, lit, identity))


def _precision(found: Patches) -> torch.Tensor:
    """(F, K, 2) of what a patch says along the direction it knows worse, and along the other; per pixel squared."""
    return found.trust[..., None] * torch.linalg.eigvalsh(found.root.transpose(2, 3) @ found.root)


def test_skin_under_a_true_track_is_found_where_it_is(known: Known) -> None:
    lit = known.lit
    middles = predict(
        known.skin.middles.of_person(known.identity),
        lit.state,
        lit.evidence.focal,
        lit.evidence.centre,
        lit.evidence.pivot,
    ).pixels
    sure = _precision(known.found)[..., 0] > 1
    assert sure.sum() > 25
    assert float((known.found.seen - middles).norm(dim=-1)[sure].median()) < 0.6
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
    error = moved.seen - known.found.seen - torch.as_tensor(shift, dtype=torch.float32)
    # Along an edge nobody sees a shift; so only along directions in which a patch knows where it is.
    along = torch.linalg.eigh(known.found.root.transpose(2, 3) @ known.found.root).eigenvectors.transpose(2, 3)
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
    moved = (darker.seen - known.found.seen).norm(dim=-1)[sure]
    assert float(moved.median()) < 0.1 and float(moved.quantile(0.9)) < 0.3
    assert float((darker.trust - known.found.trust)[sure].abs().median()) < 0.05


def test_what_the_light_does_not_explain_of_a_whole_patch_moves_it_not_at_all(known: Known) -> None:
    offsets = np.random.default_rng(0).normal(0, 0.3, known.skin.patch.max() + 1)[known.skin.patch]
    expected = replace(known.appearance, albedo=known.appearance.albedo + offsets.astype(np.float32))
    found = find_patches(known.skin, expected, 0, known.lit, known.identity)
    there = known.found.trust > 0.05
    assert torch.allclose(found.seen[there], known.found.seen[there], atol=0.01)
    assert torch.allclose(found.trust, known.found.trust, atol=1e-3)


def test_bare_skin_claims_to_know_nothing(known: Known, tmp_path: Path) -> None:
    def bare(picture: np.ndarray) -> np.ndarray:
        return (150 + np.random.default_rng(0).normal(0, 2, picture.shape)).round().astype(np.uint8)

    def learned(folder: Path) -> Appearance:
        (folder / "frames").mkdir(parents=True)
        (folder / "mattes").symlink_to(known.lit.capture.folder / "mattes")
        capture = replace(known.lit.capture, folder=folder)
        for index in range(capture.frame_count):
            paint(capture, index, bare(read_frame(known.lit.capture, index)))
        return learn_appearance(known.skin, known.identity, [replace(known.lit, capture=capture)], BLUR)

    found = known.again(tmp_path / "bare", bare, learned(tmp_path / "learned"))
    assert float(_precision(found).max()) < 0.03
    assert float(_precision(known.found)[known.found.trust > 0.5][:, 1].median()) > 0.3


def test_what_is_painted_over_is_not_believed(known: Known, tmp_path: Path) -> None:
    stripes = 128 + 80 * np.sign(np.sin(np.arange(512) / 5))[:, None] * np.ones((1, 512))

    def covered(picture: np.ndarray) -> np.ndarray:
        result = picture.copy()
        result[280:] = stripes[280:, :, None].astype(np.uint8)
        return result

    found = known.again(tmp_path / "covered", covered)
    below, above = (known.found.seen[..., 1] > 300), (known.found.seen[..., 1] < 235)
    trusted = known.found.trust > 0.3
    assert (trusted & below).sum() > 40 and (trusted & above).sum() > 40
    assert float(found.trust[trusted & below].mean()) < 0.25 * float(known.found.trust[trusted & below].mean())
    # The rest is as it was, but for its being compressed once more.
    assert float((found.trust - known.found.trust)[trusted & above].abs().quantile(0.95)) < 0.05


def test_in_a_frame_without_a_face_no_skin_is_found(known: Known) -> None:
    weights = known.lit.evidence.weights.clone()
    weights[2] = 0
    found = find_patches(
        known.skin,
        known.appearance,
        0,
        replace(known.lit, evidence=replace(known.lit.evidence, weights=weights)),
        known.identity,
    )
    assert not found.trust[2].any() and not found.root[2].any()
    assert torch.equal(found.trust[3], known.found.trust[3]) and found.trust[3].any()


def _double(surface: LandmarkSurface) -> LandmarkSurface:
    def linear(part: Linear) -> Linear:
        return Linear(*(getattr(part, field.name).double() for field in fields(Linear)))

    return replace(surface, anchor=linear(surface.anchor), arm=linear(surface.arm), share=surface.share.double())


@dataclass(frozen=True)
class Posed:
    patches: Patches
    """Not yet of a person."""
    state: FrameState
    evidence: object
    identity: torch.Tensor
    places: torch.Tensor

    def energy(
        self,
        state: FrameState | None = None,
        identity: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
        focal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(F,)"""
        evidence = self.evidence if focal is None else replace(self.evidence, focal=focal)
        person = self.patches.of_person(
            self.identity if identity is None else identity, self.places if places is None else places
        )
        return person.energy(self.state if state is None else state, evidence)


@pytest.fixture(scope="module")
def posed(known: Known) -> Posed:
    """Nine points of skin in four frames, in float64, errors of up to some standard deviations."""
    generator = torch.Generator().manual_seed(1)
    rows = np.array((1, 17, 151, 199, 205, 61, 4, 425, 18))
    surface = _double(landmark_surface(load_head()).of_points(rows))
    assert (surface.mover == 0).any() and 0 < float(surface.share[surface.mover == 0].min()) < 0.9
    evidence = replace(
        known.lit.evidence,
        **{name: getattr(known.lit.evidence, name).double() for name in ("focal", "centre", "pivot")},
    )
    size = surface.anchor.expression.shape[-1]
    face = torch.cat(
        (torch.rand(4, size, generator=generator) * 0.5, torch.randn(4, 7, generator=generator) * 0.2), 1
    ).double()
    turn = axis_angle_to_matrix(torch.randn(4, 3, generator=generator).double() * 0.3)
    rotation = turn @ torch.diag(torch.tensor((1.0, -1, -1))).double()
    state = FrameState(face, rotation, torch.tensor((0.01, -0.02, 0.6)).double().expand(4, 3))
    identity = torch.randn(surface.anchor.shape.shape[-1], generator=generator).double() * 0.5
    places = torch.randn(9, 3, generator=generator).double() * 0.002
    bases = torch.linalg.qr(torch.randn(9, 3, 3, generator=generator).double())[0]
    root = torch.randn(4, 9, 2, 2, generator=generator).double() * 0.7
    trust = torch.rand(4, 9, generator=generator).double()
    patches = Patches(surface, torch.zeros(4, 9, 2).double(), root, trust, bases)
    shown = predict(
        patches.of_person(identity, places).surface, state, evidence.focal, evidence.centre, evidence.pivot
    ).pixels
    patches = replace(patches, seen=shown + torch.randn(shown.shape, generator=generator).double() * 2)
    return Posed(patches, state, evidence, identity, places)


def _slope(function: object, size: int, step: float) -> torch.Tensor:
    """(..., size) central differences of a function of a vector."""
    unit = torch.eye(size).double() * step
    return torch.stack([(function(row) - function(-row)) / (2 * step) for row in unit], -1)


def test_the_gradient_of_everything_is_the_energys(posed: Posed) -> None:
    normal = posed.patches.of_person(posed.identity, posed.places).equations(posed.state, posed.evidence, shared=True)
    torch.testing.assert_close(normal.energy, posed.energy())
    bound = torch.full((posed.state.face.shape[1],), 99.0).double()
    count, shapes = normal.gradient.shape[1], len(posed.identity)
    own = _slope(lambda step: posed.energy(posed.state.moved(step.expand(4, -1), -bound, bound)), count, 1e-5)
    torch.testing.assert_close(normal.gradient, own, rtol=1e-3, atol=1e-5 * float(own.abs().max()))
    shared = torch.cat(
        (
            _slope(lambda step: posed.energy(identity=posed.identity + step).sum(), shapes, 1e-5),
            _slope(
                lambda step: posed.energy(
                    posed.state.zoomed(step.exp().squeeze()), focal=posed.evidence.focal * step.exp()
                ).sum(),
                1,
                1e-6,
            ),
            _slope(lambda step: posed.energy(places=posed.places + step.unflatten(0, (9, 3))).sum(), 27, 1e-6),
        )
    )
    assert normal.shared_gradient.shape == (shapes + 1 + 27,)
    torch.testing.assert_close(normal.shared_gradient, shared, rtol=1e-4, atol=1e-6 * float(shared.abs().max()))


def test_the_hessian_is_made_of_the_same_rows(posed: Posed) -> None:
    """Gauss-Newton's, by one dense Jacobian of the whitened errors over everything."""
    person = posed.patches.of_person(posed.identity, posed.places)
    normal = person.equations(posed.state, posed.evidence, shared=True)
    bound = torch.full((posed.state.face.shape[1],), 99.0).double()

    def pixels(state: FrameState, identity: torch.Tensor, focal: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        surface = posed.patches.of_person(identity, places).surface
        return predict(surface, state, focal, posed.evidence.centre, posed.evidence.pivot).pixels

    def all_of(step: torch.Tensor) -> torch.Tensor:
        own, identity, focal, places = step.split((normal.gradient.shape[1], len(posed.identity), 1, 27))
        return pixels(
            posed.state.moved(own.expand(4, -1), -bound, bound).zoomed(focal.exp().squeeze()),
            posed.identity + identity,
            posed.evidence.focal * focal.exp(),
            posed.places + places.unflatten(0, (9, 3)),
        )

    size = normal.gradient.shape[1]
    everything = size + normal.shared_gradient.shape[0]
    error = (person.root @ (all_of(torch.zeros(everything).double()) - person.seen).unsqueeze(-1)).squeeze(-1)
    weight = person.trust * (HALVING**2 / (HALVING**2 + (error**2).sum(-1))) ** 2
    rows = ((weight.sqrt()[..., None, None] * person.root) @ _slope(all_of, everything, 1e-6)).flatten(1, 2)
    dense = rows.transpose(1, 2) @ rows
    for found, expected in (
        (normal.hessian, dense[:, :size, :size]),
        (normal.cross, dense[:, :size, size:]),
        (normal.shared_hessian, dense[:, size:, size:].sum(0)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_frames_alone_and_frames_with_what_they_share_have_the_same_equations(posed: Posed) -> None:
    person = posed.patches.of_person(posed.identity, posed.places)
    normal = person.equations(posed.state, posed.evidence, shared=True)
    gradient, hessian = person.normal(posed.state, posed.evidence)
    assert torch.allclose(gradient, normal.gradient) and torch.allclose(hessian, normal.hessian)
    part = slice(1, 3)
    torch.testing.assert_close(person[part].energy(posed.state[part], posed.evidence), normal.energy[part])


def test_equations_are_widened_by_what_was_not_seen_and_added_one_by_one(posed: Posed) -> None:
    normal = posed.patches.of_person(posed.identity, posed.places).equations(posed.state, posed.evidence, shared=True)
    wide, size = normal.widened(5), len(normal.shared_gradient)
    assert wide.shared_gradient.shape == (size + 5,) and wide.cross.shape == (*normal.cross.shape[:2], size + 5)
    assert wide.shared_hessian.shape == (size + 5, size + 5)
    for name in ("shared_gradient", "shared_hessian", "cross"):
        part = getattr(wide, name)
        inner = (
            part[:size] if part.ndim == 1 else part[..., :size, :size] if name == "shared_hessian" else part[..., :size]
        )
        assert torch.equal(inner, getattr(normal, name))
        assert float(part.abs().sum()) == pytest.approx(float(getattr(normal, name).abs().sum()))
    twice = normal + normal
    for field in fields(Normal):
        assert torch.equal(getattr(twice, field.name), 2 * getattr(normal, field.name)), field.name
    alone = replace(normal, shared_gradient=None, shared_hessian=None, cross=None)
    assert (alone + alone).cross is None
