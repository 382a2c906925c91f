"""Single formulas of training against the same computed plainly, on a few vertices and frames."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_capture import limits_of_a_ball

from backend.avatar.anchors import AnchorGaussians
from backend.avatar.graph_avatar import OFFSET_UNIT
from backend.training import optimisation as optimisation_module
from backend.training.frames import evenly_spaced
from backend.training.losses import AnchorLimits
from backend.training.optimisation import Optimisation, _mean, render_over_white
from backend.training.parameter_groups import parameter_groups
from backend.training.step_draws import draw_step, rows_of_step
from backend.training.unobserved_regions import MOUTH_COLORS, UnobservedPrior, UnobservedVertices
from backend.training.validation import Validation, split_rows

C0 = 0.28209479177387814
"""The constant spherical harmonic."""


def vertices(grazing: list[float], unobserved: list[float] | None = None, **more: object) -> UnobservedVertices:
    """A chain of vertices."""
    count = len(grazing)
    return UnobservedVertices(
        unobserved=torch.tensor(unobserved or [0.0] * count),
        hidden=torch.zeros(count),
        grazing=torch.tensor(grazing),
        edges=torch.stack((torch.arange(count - 1), torch.arange(1, count)), 1),
        inside=torch.full((count, 3), torch.nan),
        whites=torch.zeros(count, dtype=torch.bool),
        aslant=torch.zeros(count, dtype=torch.bool),
        **more,
    )


def test_filling_minimises_its_energy() -> None:
    grazing = np.array((0.0, 0.0, 0.3, 1.0, 1.0, 0.6, 0.0, 1.0, 0.9))
    chain = vertices(grazing.tolist())
    # The last two vertices are a part of their own, which is nowhere reliable.
    chain = replace(chain, edges=chain.edges[[0, 1, 2, 3, 4, 5, 7]])
    random = np.random.default_rng(0)
    known, default = random.normal(size=(2, 9, 2))
    dense, right = np.zeros((9, 9)), np.zeros((9, 2))
    median = default.copy()
    median[:7] = np.median(known[[0, 1, 6]], 0)
    for vertex in range(9):
        dense[vertex, vertex] += 1e3 * (1 - grazing[vertex]) + 0.02
        right[vertex] = 1e3 * (1 - grazing[vertex]) * known[vertex] + 0.02 * median[vertex]
    for first, second in chain.edges.tolist():
        weight = max(grazing[first], grazing[second])
        dense[[first, second], [first, second]] += weight
        dense[[first, second], [second, first]] -= weight
    filled = chain.fill(torch.as_tensor(known), torch.as_tensor(default))
    np.testing.assert_allclose(filled.numpy(), np.linalg.solve(dense, right), rtol=1e-8)


def test_the_priors_weight_is_one_unseen_half_hidden_and_a_tenth_grazing() -> None:
    seen = vertices([0.0, 1.0, 1.0, 1.0, 0.5], [0.0, 0.0, 0.2, 1.0, 0.0])
    seen = replace(seen, hidden=torch.tensor((0.0, 0.0, 1.0, 1.0, 0.05)))
    assert seen.weight.tolist() == pytest.approx([0, 0.1, 0.5, 1, 0.05])


class Free:
    """Free Gaussians with given colours."""

    def __init__(self, colors: torch.Tensor) -> None:
        generator = torch.Generator().manual_seed(1)
        count = len(colors)
        self.geometry = torch.randn(count, 10, generator=generator)
        self.appearance = torch.randn(count, 1 + 3 * 4, generator=generator)
        self.seen, self.base_scale = colors, torch.full((count,), 0.004)

    def colors(self, pose: object) -> torch.Tensor:
        return self.seen


def limits_of(free: Free) -> AnchorLimits:
    """The last Gaussian may be half as large as it starts."""
    scale = free.base_scale * torch.tensor((3.0,) * (len(free.seen) - 1) + (0.5,))
    return limits_of_a_ball(free.base_scale, scale)


def test_unseen_gaussians_become_those_of_a_closed_surface_in_the_colours_around() -> None:
    grey = torch.full((5, 3), 0.6)
    free = Free(grey)
    free.geometry[:, :3] = 0.25
    before_geometry, before_appearance = free.geometry.clone(), free.appearance.clone()
    vertices([0.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.5, 1.0]).extrapolate_into(free, None, limits_of(free))
    assert torch.equal(free.geometry[:3], before_geometry[:3]), "a grazing vertex keeps its shape"
    closed = torch.tensor((0.25, 0.25, 0.25, 0, 0, 0, 1, 0, 0, 0))
    small = torch.tensor((0.25, 0.25, 0.25, *3 * (math.log(0.5),), 1, 0, 0, 0))
    torch.testing.assert_close(free.geometry[4], small)
    torch.testing.assert_close(free.geometry[3], (before_geometry[3] + closed) / 2)
    constant = torch.cat((torch.full((3,), 0.1 / C0), torch.zeros(9)))
    for vertex in (2, 3, 4):
        torch.testing.assert_close(free.appearance[vertex, 1:], constant, rtol=1e-4, atol=1e-5)
    assert free.appearance[4, 0] == 3 and free.appearance[2, 0] == before_appearance[2, 0]
    assert float(free.appearance[3, 0]) == pytest.approx((3 + float(before_appearance[3, 0])) / 2)
    assert torch.equal(free.appearance[:2], before_appearance[:2])


@pytest.mark.parametrize(("skin", "brightness"), ((0.55, 1.0), (0.33, 0.6), (0.05, 0.2), (0.9, 1.2), (None, 1.0)))
def test_a_mouth_that_never_opens_is_as_bright_as_its_person(skin: float | None, brightness: float) -> None:
    free = Free(torch.full((4, 3), skin or 0.5))
    unseen = vertices([0.0 if skin else 1.0] * 2 + [1.0] * 2, [0.0, 0.0, 1.0, 1.0])
    teeth = torch.tensor((0.50, 0.46, 0.41))
    assert MOUTH_COLORS == {"teeth": (0.50, 0.46, 0.41), "tongue": (0.40, 0.20, 0.19), "wall": (0.14, 0.06, 0.05)}
    mouth = unseen.inside.clone()
    mouth[2:] = teeth
    # The mouth is a part of its own.
    replace(unseen, inside=mouth, edges=torch.tensor(((0, 1), (2, 3)))).extrapolate_into(free, None, limits_of(free))
    torch.testing.assert_close(free.appearance[3, 1:4] * C0 + 0.5, teeth * brightness, rtol=1e-4, atol=1e-4)


def anchors(seed: int, count: int = 3) -> AnchorGaussians:
    generator = torch.Generator().manual_seed(seed)
    return AnchorGaussians(
        offsets=0.01 * torch.randn(1, count, 3, generator=generator),
        scales=0.01 * torch.rand(1, count, 3, generator=generator) + 0.001,
        quaternions=torch.randn(1, count, 4, generator=generator),
        opacities=torch.rand(1, count, generator=generator),
        harmonics=torch.randn(1, count, 4, 3, generator=generator),
    )


def test_the_prior_is_a_weighted_mean_of_squares() -> None:
    made, kept, weight = anchors(1), anchors(2), torch.tensor((1.0, 0.5, 0.0))
    neural = torch.tensor([[0.2, 0.4, 0.6, 0.8, 1.0, 0.1]])
    squares = (
        ((made.offsets - kept.offsets) / OFFSET_UNIT).square().sum(-1)
        + (made.scales.log() - kept.scales.log()).square().sum(-1)
        + (made.opacities - kept.opacities).square()
        + (made.harmonics - kept.harmonics).square().flatten(2).sum(-1)
    )[0]
    anchored = 0.1 * float((weight * squares).mean())
    fading = 0.02 * (1.0 * (0.04 + 0.16) + 0.5 * (0.36 + 0.64)) / 6
    prior = UnobservedPrior(weight, kept)
    assert float(prior.loss(made, neural)) == pytest.approx(anchored + fading, rel=1e-5)
    assert float(prior.loss(made, neural[:, :0])) == pytest.approx(anchored, rel=1e-5)
    assert float(UnobservedPrior(weight).loss(made, neural)) == pytest.approx(fading, rel=1e-5)
    assert float(UnobservedPrior(weight).loss(made, neural[:, :0])) == 0


def test_a_prior_knows_what_it_can_be_restored_from() -> None:
    prior = UnobservedPrior(torch.ones(3), anchors(2))
    tensors = prior.tensors()
    assert prior.fits(tensors) and prior.fits({}) and UnobservedPrior(torch.ones(3)).tensors() == {}
    for name in tensors:
        assert not prior.fits({key: value for key, value in tensors.items() if key != name}), name
        if name != "harmonics":
            assert not prior.fits(tensors | {name: tensors[name][:, :2]}), name
            assert not prior.fits(tensors | {name: tensors[name].repeat(2, *[1] * (tensors[name].ndim - 1))}), name
    assert not prior.fits(tensors | {"harmonics": tensors["harmonics"][0]})
    restored = UnobservedPrior(prior.weight).restored(tensors)
    assert torch.equal(restored.extrapolated.harmonics, tensors["harmonics"]) and restored.weight is prior.weight
    assert prior.restored({}).extrapolated is None


class Frames:
    condition_size, device = 6, torch.device("cpu")

    def __len__(self) -> int:
        return 40


def test_a_steps_draws_have_their_ranges_and_repeat_with_seed_and_step() -> None:
    rows = torch.arange(10, 30)
    options = {"seed": 5, "condition_noise": 0.5, "crop_range": 100}
    many = draw_step(Frames(), rows, 400, step=3, **options)
    assert many.noise.shape == (400, 6) and float(many.noise.std()) == pytest.approx(0.5, rel=0.05)
    assert many.background.shape == (400, 3) and 0 <= float(many.background.min()) < 0.02 < 0.98 < many.background.max()
    crops = torch.tensor(many.crops)
    assert crops.shape == (400, 2) and 25 <= int(crops.min()) <= 27 and 72 <= int(crops.max()) < 75
    assert many.other_rows.shape == (400, 8) and set(many.other_rows.flatten().tolist()) == set(range(40))
    assert torch.equal(many.rows, rows_of_step(rows, 400, 5, 3)) and set(many.rows.tolist()) == set(range(10, 30))
    again, other, later = (
        draw_step(Frames(), rows, 400, **(options | change))
        for change in ({"step": 3}, {"step": 3, "seed": 6}, {"step": 4})
    )
    for name in vars(many):
        same = getattr(again, name)
        assert torch.equal(torch.as_tensor(same), torch.as_tensor(getattr(many, name))), name
        for changed in (other, later):
            assert not torch.equal(torch.as_tensor(getattr(changed, name)), torch.as_tensor(getattr(many, name))), name


def test_a_steps_draws_are_split_in_parts_that_hold_together() -> None:
    draws = draw_step(Frames(), torch.arange(9), 7, seed=1, step=0, condition_noise=1.0, crop_range=50)
    for parts, sizes in ((1, [7]), (2, [4, 3]), (3, [3, 3, 1]), (5, [2, 2, 2, 1]), (9, [1] * 7)):
        split = draws.split(parts)
        assert [len(part.crops) for part in split] == sizes
        for name in ("rows", "noise", "background", "other_rows"):
            assert torch.equal(torch.cat([getattr(part, name) for part in split]), getattr(draws, name))
        assert [crop for part in split for crop in part.crops] == draws.crops


def test_workers_gradients_are_weighted_by_their_shares() -> None:
    first, second = torch.tensor((1.0, 2.0)), torch.tensor((3.0, -2.0))
    assert _mean([first, second], [0.75, 0.25]).tolist() == [1.5, 1.0]
    assert _mean([None, second], [0.75, 0.25]).tolist() == [0.75, -0.5]
    assert _mean([None, None], [0.5, 0.5]) is None and _mean([first], [0.5]) is first


def test_a_render_over_white_is_what_shows_through(monkeypatch: pytest.MonkeyPatch) -> None:
    color, alpha = torch.tensor([[[[0.5, 0.2, -0.3]]]]), torch.tensor([[[0.6]]])
    raster = SimpleNamespace(color=color, alpha=alpha)
    monkeypatch.setattr(optimisation_module, "rasterize", lambda splats, cameras: (splats, cameras))
    monkeypatch.setattr(
        optimisation_module, "enhance", lambda enhancer, drawn, splats, cameras: raster if enhancer == "e" else None
    )
    batch = SimpleNamespace(pose="pose", cameras="cameras")
    shown = render_over_white(lambda pose: (pose, None), batch, "e")
    torch.testing.assert_close(shown, torch.tensor([[[[0.9, 0.6, 0.1]]]]))


def test_what_few_pixels_constrain_learns_fastest() -> None:
    class Networks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.geometry, self.appearance, self.neural, self.enhancer = (torch.nn.Module() for _ in range(4))
            self.geometry.bias_output, self.geometry.bias, self.geometry.weight = made(3)
            self.appearance.bias_output, self.appearance.offsets = made(2)
            self.neural.bias_output, self.neural.offsets, self.neural.weight, self.neural.from_bias = made(4)
            self.neural.out, self.neural.from_anchor = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
            self.enhancer.bias, self.enhancer.weight = made(2)
            self.enhancer.frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
            self.blendshapes = None

    def made(count: int) -> list[torch.nn.Parameter]:
        return [torch.nn.Parameter(torch.zeros(1)) for _ in range(count)]

    networks = Networks()
    names = {id(parameter): name for name, parameter in networks.named_parameters()}
    groups = [
        ({names[id(each)] for each in group.parameters}, group.learning_rate) for group in parameter_groups(networks)
    ]
    assert groups == [
        (
            {
                "geometry.bias_output",
                "appearance.bias_output",
                "neural.bias_output",
                "neural.offsets",
                "neural.out.bias",
            },
            5e-3,
        ),
        ({"geometry.bias", "geometry.weight", "appearance.offsets"}, 1e-3),
        (
            {
                *("neural.weight", "neural.from_bias", "neural.out.weight"),
                *("neural.from_anchor.weight", "neural.from_anchor.bias", "enhancer.bias", "enhancer.weight"),
            },
            2e-3,
        ),
    ]


def test_blendshapes_learn_eight_times_as_fast_and_an_enhancer_beside_them_does_not() -> None:
    class Networks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blendshapes, self.enhancer = torch.nn.Module(), torch.nn.Linear(1, 1)
            self.blendshapes.mean, self.blendshapes.shapes = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))

    networks = Networks()
    rates = {id(each): group.learning_rate for group in parameter_groups(networks) for each in group.parameters}
    shapes, mean = networks.blendshapes.shapes, networks.blendshapes.mean
    assert (rates[id(mean)], rates[id(shapes)], rates[id(networks.enhancer.weight)]) == (4e-2, 8e-3, 2e-3)


def test_gradients_that_leak_through_hair_hardly_move_what_no_frame_shows() -> None:
    class Networks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blendshapes = torch.nn.Module()
            self.blendshapes.mean = torch.nn.Parameter(torch.zeros(2))

    networks = Networks()
    stage = Optimisation(
        networks, parameter_groups(networks), [], None, stage="", steps=1, batch=1, size=1, final_rate=1
    )
    networks.blendshapes.mean.grad = torch.tensor((1e-8, 1e-5))
    stage.optimizer.step()
    hidden, shown = networks.blendshapes.mean.detach().abs().tolist()
    assert hidden < 0.02 * shown and shown == pytest.approx(4e-2, rel=0.15)


def test_evenly_spaced_frames_have_both_ends() -> None:
    frames = np.arange(100, 111)
    assert (
        evenly_spaced(frames, 3).tolist() == [100, 105, 110] and evenly_spaced(frames, 99).tolist() == frames.tolist()
    )
    assert evenly_spaced(frames, 1).tolist() == [100]


@pytest.mark.parametrize(
    ("count", "share", "kept"), [(60, 0.1, [19, 20, 21, 39, 40, 41]), (59, 0.1, []), (60, 0.0, [])]
)
def test_rows_are_kept_around_both_thirds(count: int, share: float, kept: list[int]) -> None:
    training, validation = split_rows(count, share)
    assert validation.tolist() == kept and training.tolist() == [row for row in range(count) if row not in kept]


def test_validation_shows_twelve_frames_at_most_with_both_ends() -> None:
    rows = torch.arange(50, 80)
    chosen = Validation(rows).rows.tolist()
    assert len(chosen) == 12 and chosen[0] == 50 and chosen[-1] == 79 and set(np.diff(chosen)) <= {2, 3}
    assert Validation(rows[:5]).rows.tolist() == rows[:5].tolist() and len(Validation(rows[:0]).rows) == 0
    assert np.isnan(Validation(rows).best_psnr)
