"""A training step: its learning rate, the noise on the conditions, and the loss of the unenhanced image."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from small_capture import NO_RINGS, SIZE, limits_of_a_ball, make_small_capture

from backend.avatar.avatar import build_networks
from backend.avatar.settings import GENERATORS, AvatarSettings
from backend.head.formats import load_head
from backend.head.mouth import mouth_parts, mouth_rows
from backend.head.rotations import quaternion_to_matrix
from backend.progress import SILENT, Progress
from backend.splatting.types import Raster, Splats
from backend.training import losses, optimisation, presets, session, stages
from backend.training.checkpoint import EVERY_SECONDS
from backend.training.frames import TrainingFrames
from backend.training.losses import COARSE_WEIGHT, anchor_limits, image_loss, total_loss
from backend.training.optimisation import SEED, Optimisation, ParameterGroup
from backend.training.presets import PRESETS, Preset, find_preset
from backend.training.stages import CONDITION_NOISE
from backend.training.step_draws import rows_of_step
from backend.training.trainer import train
from backend.training.visible_eyes import VisibleEyes
from backend.training.warmup import VertexBoundGaussians


@pytest.fixture(scope="module", autouse=True)
def user_folder(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def small(user_folder, tmp_path_factory):
    return make_small_capture(tmp_path_factory.mktemp("steps"), frames=10)


@pytest.fixture(scope="module")
def frames(small):
    capture, track, model = small
    return TrainingFrames(capture, track, model, SIZE)


def make_fitting(frames, model, **options) -> Optimisation:
    free = VertexBoundGaussians(torch.full((len(model.template),), 0.02), 0)
    options = {"stage": "", "steps": 8, "batch": 2, "size": SIZE, "final_rate": 0.1} | options
    groups = [ParameterGroup([free.geometry], 1e-2), ParameterGroup([free.appearance], 3e-2)]
    return Optimisation(free, groups, frames, anchor_limits(model, free.base_scale), **options)


def rates_of(optimisation) -> list[list[float]]:
    """(steps, groups): the learning rates of every step."""
    rates = []
    optimisation.run(SILENT, lambda _: rates.append([group["lr"] for group in optimisation.optimizer.param_groups]))
    return rates


def test_every_groups_learning_rate_decays_to_a_tenth_over_the_steps(frames, small):
    rates = rates_of(make_fitting(frames, small[2]))
    assert rates[0] == pytest.approx([1e-2, 3e-2])
    # Half-way along a cosine the rate is the mean of both ends.
    assert rates[4] == pytest.approx([0.55e-2, 1.65e-2])
    assert all(after < before for before, after in itertools.pairwise(rate[0] for rate in rates))
    assert 1e-3 < rates[-1][0] < 1.5e-3


def test_with_a_time_budget_the_learning_rate_decays_with_the_clock(frames, small):
    seconds = itertools.chain((0.0,), itertools.count(15.0, 15.0))
    rates = rates_of(make_fitting(frames, small[2], steps=1000, minutes=1.0, clock=lambda: next(seconds)))
    assert [rate[0] for rate in rates] == pytest.approx([1e-2, 0.868e-2, 0.55e-2, 0.232e-2], abs=1e-5)


def test_conditions_get_noise_of_the_given_size(frames, small):
    capture, track, model = small
    optimisation = make_fitting(frames, model, batch=4, condition_noise=0.03)
    tracked = torch.cat([frames.batch_poses(torch.tensor([row])).conditions for row in range(len(frames))])
    forward, noise = optimisation.model.forward, []

    def watched(pose):
        # The nearest conditions are those of the same frame: the noise is smaller than the differences between frames.
        nearest = torch.cdist(pose.conditions, tracked).argmin(1)
        noise.append(pose.conditions - tracked[nearest])
        return forward(pose)

    optimisation.model.forward = watched
    optimisation.run(SILENT)
    drawn = torch.cat(noise)
    assert drawn.std().item() == pytest.approx(0.03, rel=0.15) and abs(drawn.mean().item()) < 0.01
    assert not torch.equal(noise[0], noise[-1]), "every step draws its own"


def test_avatars_are_trained_with_noisy_conditions_and_a_decaying_learning_rate(small, tmp_path, monkeypatch):
    made = []

    class Watched(Optimisation):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(stages, "Optimisation", Watched)
    train(small[0].folder, tmp_path / "ball.effigy", plan=Preset(size=SIZE, warmup_steps=2, steps=20, refinement=False))
    warmup, main = made
    assert warmup.condition_noise == 0 and main.condition_noise == CONDITION_NOISE > 0
    assert main.optimizer.param_groups[0]["lr"] < 0.1 * main.learning_rates[0]


def test_with_an_enhancer_the_unenhanced_image_keeps_a_tenth_of_the_loss(monkeypatch):
    generator = torch.Generator().manual_seed(0)

    def raster() -> Raster:
        return Raster(
            torch.rand(1, 16, 16, 3, generator=generator), torch.full((1, 16, 16), 0.5), torch.ones(1, 16, 16)
        )

    monkeypatch.setattr(losses, "anchor_limit_loss", lambda anchors, anchor_limit: 0.0)
    monkeypatch.setattr(losses, "ring_loss", lambda anchors, rings, ring_edges: 0.0)
    batch = SimpleNamespace(color=torch.rand(1, 16, 16, 3, generator=generator), matte=torch.ones(1, 16, 16))
    background, enhanced, plain, other = torch.rand(1, 3, generator=generator), raster(), raster(), raster()
    # All three have the same alpha, so only the term of the unenhanced colours differs.
    limits = SimpleNamespace(rings=NO_RINGS, ring_edges=None)
    cost = [total_loss(each, batch, None, limits, background, enhanced=enhanced) for each in (plain, other)]
    alone = [image_loss(each, batch, background, None, 0) for each in (plain, other)]
    assert abs(alone[0] - alone[1]) > 1e-3
    torch.testing.assert_close(cost[0] - cost[1], COARSE_WEIGHT * (alone[0] - alone[1]), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_shown_psnr_is_the_batchs_and_every_tenth_step_moves_it_by_a_fifth(frames, small, threads, monkeypatch):
    fitting = make_fitting(frames, small[2], steps=11)
    monkeypatch.setattr(
        optimisation, "batch_psnr", lambda raster, batch: torch.tensor(20.0 if fitting.step == 0 else 30.0)
    )
    shown = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fitting.run(SILENT, lambda each: shown.append(each.recent_psnr))
    finally:
        torch.set_num_threads(before)
    assert shown == pytest.approx([20.0] * 10 + [22.0])


def random_images(seed: int) -> tuple[Raster, SimpleNamespace, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    color, alpha, truth, matte, background = (
        torch.rand(shape, generator=generator)
        for shape in ((2, 16, 16, 3), (2, 16, 16), (2, 16, 16, 3), (2, 16, 16), (2, 3))
    )
    return Raster(color, alpha, torch.zeros(2, 16, 16)), SimpleNamespace(color=truth, matte=matte), background


def test_the_image_loss_is_the_papers_over_the_same_background():
    raster, batch, background = random_images(1)
    a = raster.color + (1 - raster.alpha)[..., None] * background[:, None, None]
    b = batch.color * batch.matte[..., None] + (1 - batch.matte)[..., None] * background[:, None, None]
    expected = 0.8 * (a - b).abs().mean() + 0.2 * (1 - losses.ssim(a, b).mean())
    torch.testing.assert_close(image_loss(raster, batch, background, None, 0), expected)
    corners = [[0, 4], [8, 0]]
    crops = [torch.stack([x[0, 0:8, 4:12], x[1, 8:16, 0:8]]) for x in (a, b)]
    perceptual = losses.vgg_hed_distance(*crops, depth=3).mean()
    torch.testing.assert_close(image_loss(raster, batch, background, corners, 8), expected + 0.1 * perceptual)


def test_the_matte_loss_is_the_binary_cross_entropy_of_alpha():
    raster, batch, _ = random_images(2)
    expected = torch.nn.functional.binary_cross_entropy(raster.alpha.clamp(1e-3, 1 - 1e-3), batch.matte)
    torch.testing.assert_close(losses.matte_loss(raster, batch), expected)
    sure = Raster(raster.color, torch.ones(2, 16, 16), raster.depth)
    nothing = SimpleNamespace(matte=torch.zeros(2, 16, 16))
    assert losses.matte_loss(sure, nothing) == pytest.approx(-math.log(1e-3), rel=1e-3)


def test_gaussians_are_penalised_by_the_square_of_what_exceeds_their_limits():
    limits = limits_of_a_ball(torch.tensor([0.01, 0.02]), torch.tensor([0.002, 0.004]))
    offsets = torch.tensor([[[0.03, 0.0, 0.0], [0.0, 0.02, 0.0]]])
    scales = torch.tensor([[[0.004, 0.002, 0.001], [0.004, 0.004, 0.016]]])
    harmonics = torch.ones(1, 2, 4, 3)
    anchors = SimpleNamespace(offsets=offsets, scales=scales, opacities=torch.zeros(1, 2), harmonics=harmonics)
    # Offsets: 3 and 1 times the limit; scales: one of twice and one of four times the limit, of six.
    assert losses.anchor_limit_loss(anchors, limits) == pytest.approx((4 + 0) / 2 + (1 + 9) / 6)


def test_lips_are_penalised_for_needles_and_for_what_shows_through_them():
    limits = limits_of_a_ball(torch.ones(2), torch.ones(2), torch.tensor([0.004, 0.0]))
    # Along one axis a quarter of the least scale; and 0.4 below the least opacity. The second is no lip.
    scales = torch.tensor([[[0.004, 0.001, 0.008], [0.0001, 0.0001, 0.0001]]])
    anchors = SimpleNamespace(
        offsets=torch.zeros(1, 2, 3),
        scales=scales,
        opacities=torch.tensor([[0.5, 0.1]]),
        harmonics=torch.ones(1, 2, 4, 3),
    )
    assert losses.anchor_limit_loss(anchors, limits) == pytest.approx(0.75**2 / 6 + 0.4**2 / 2)


def test_a_closed_surface_may_be_thin_but_neither_narrow_nor_faint():
    limits = replace(limits_of_a_ball(torch.ones(2), torch.ones(2)), least_breadth=torch.tensor([0.004, 0.0]))

    def loss(scales: list[float], opacity: float) -> float:
        anchors = SimpleNamespace(
            offsets=torch.zeros(1, 2, 3),
            scales=torch.tensor([[scales, [1e-5] * 3]]),
            opacities=torch.tensor([[opacity, 0.0]]),
            harmonics=torch.ones(1, 2, 1, 3),
        )
        return float(losses.anchor_limit_loss(anchors, limits))

    assert loss([0.004, 0.0001, 0.005], 0.9) == pytest.approx(0)
    assert loss([0.001, 0.0001, 0.005], 0.9) == pytest.approx(0.75**2 / 2)
    assert loss([0.004, 0.0001, 0.005], 0.5) == pytest.approx(0.4**2 / 2)


def test_what_is_seen_aslant_has_one_colour_from_all_sides():
    limits = replace(limits_of_a_ball(torch.ones(2), torch.ones(2)), least_breadth=torch.tensor([0.001, 0.0]))
    harmonics = torch.zeros(1, 2, 4, 3)
    anchors = SimpleNamespace(
        offsets=torch.zeros(1, 2, 3),
        scales=torch.full((1, 2, 3), 0.01),
        opacities=torch.ones(1, 2),
        harmonics=harmonics,
    )
    harmonics[0, :, 0] = 2.0
    assert losses.anchor_limit_loss(anchors, limits) == 0
    harmonics[0, 1, 2, 0] = 3.0
    assert losses.anchor_limit_loss(anchors, limits) == 0
    harmonics[0, 0, 2, 0] = 3.0
    assert losses.anchor_limit_loss(anchors, limits) == pytest.approx(9 / 2)


def spawned(away: float, scales: list[float], turn: list[float], neck: list[float]) -> tuple[Splats, SimpleNamespace]:
    """A vertex at (0.1, 0, 0) with its anchor, and the Gaussian that it spawned."""
    zeros = torch.zeros(1, 2, 3)
    means = torch.tensor([[[0.1, 0, 0], [0.1, 0, away]]])
    quaternions = torch.tensor([[[1.0, 0, 0, 0], turn]])
    own = torch.tensor([[[1.0, 1, 1], scales]])
    pose = SimpleNamespace(posed=means[:, :1], rotations=torch.tensor([[neck]]))
    return Splats(means, quaternions, own, zeros[..., 0] + 1, zeros), pose


def test_spawned_gaussians_are_penalised_for_standing_off_the_surface():
    """Their limits here are 1 mm along the vertex's normal, which is x in the rest pose, 3 mm along the surface, and 1
    mm of thickness.
    """
    limits = replace(limits_of_a_ball(torch.tensor([0.001]), torch.tensor([0.01])), reach=torch.tensor([0.003]))
    still, quarter = [1.0, 0, 0, 0], [math.sqrt(0.5), 0, 0, math.sqrt(0.5)]
    flat = [0.001, 0.02, 0.02]

    def loss(*arguments) -> float:
        return float(losses.spawned_limit_loss(*spawned(*arguments), limits))

    assert loss(0.003, flat, still, still) == pytest.approx(0, abs=1e-9)
    assert loss(0.009, flat, still, still) == pytest.approx(4, rel=1e-4)
    # Where the head is turned by a quarter about y, 3 mm along z stand off the surface.
    assert loss(0.003, flat, still, [math.sqrt(0.5), 0, math.sqrt(0.5), 0]) == pytest.approx(4 + 19**2, rel=1e-3)
    assert loss(0, [0.003, 0, 0], still, still) == pytest.approx(4, rel=1e-4)
    # Turned by a quarter about z, its long axis lies along the normal; where the head turns too, in the surface.
    assert loss(0, flat, quarter, still) == pytest.approx(19**2, rel=1e-3)
    assert loss(0, flat, quarter, quarter) == pytest.approx(0, abs=1e-6)
    splats, pose = spawned(0.009, flat, still, still)
    alone = Splats(*(part[:, :1] for part in vars(splats).values()))
    assert losses.spawned_limit_loss(alone, pose, limits) == 0
    unseen = replace(splats, opacities=torch.zeros(1, 2))
    assert losses.spawned_limit_loss(unseen, pose, limits) == 0


def test_each_spawned_gaussian_is_limited_by_its_own_vertex_and_leaves_the_anchor_as_large():
    """Three vertices at (v, 0, 0), which spawn two each; the second of vertex 1 is 3 mm too far, and too thick."""
    limits = replace(
        limits_of_a_ball(torch.tensor([0.001, 0.003, 0.002]), torch.ones(3)), thickness=torch.tensor([0.1, 0.001, 0.1])
    )
    posed = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]])
    means = torch.cat((posed, posed.repeat_interleave(2, 1)), 1)
    means[0, 3 + 3, 1] = 0.006
    scales = torch.full((1, 9, 3), 1e-4)
    scales[0, 3 + 3] = 0.003
    scales.requires_grad_()
    anchors, own = scales[:, :3], scales[:, 3:].detach() / scales[:, :3].detach().repeat_interleave(2, 1)
    made = torch.cat((anchors, anchors.repeat_interleave(2, 1) * own), 1)
    still = torch.tensor([1.0, 0, 0, 0])
    splats = Splats(means, still.expand(1, 9, 4), made, torch.ones(1, 9), torch.zeros(1, 9, 3))
    pose = SimpleNamespace(posed=posed, rotations=still.expand(1, 3, 4))
    loss = losses.spawned_limit_loss(splats, pose, limits)
    value = loss.item()
    assert value == pytest.approx((1**2 + 2**2) / 6, rel=1e-4)
    assert torch.autograd.grad(loss, scales)[0].abs().max() < 1e-4 * value / 0.003


def test_the_extent_of_a_gaussian_is_that_of_its_covariance():
    generator = torch.Generator().manual_seed(3)
    quaternions, scales = torch.randn(50, 4, generator=generator), torch.rand(50, 3, generator=generator)
    directions = torch.randn(50, 3, generator=generator)
    turns = quaternion_to_matrix(torch.nn.functional.normalize(quaternions, dim=-1))
    covariance = turns @ torch.diag_embed(scales.square()) @ turns.transpose(1, 2)
    unit = torch.nn.functional.normalize(directions, dim=-1)
    expected = (unit[:, None] @ covariance @ unit[..., None]).flatten().sqrt()
    torch.testing.assert_close(losses.extent_along(quaternions, scales, directions), expected)
    # Mouths that nothing was learnt of have none.
    assert losses.extent_along(torch.zeros(1, 4), scales[:1], directions[:1]).isfinite().all()


def test_a_training_draws_spawned_gaussians_to_the_surface(frames, small):
    """Also where no pixel asks for it: behind the head, or before the brow in profile."""
    model = small[2]
    networks = build_networks(AvatarSettings(size=SIZE, **GENERATORS["blendshapes"]), model, small[1].identity)
    limits = anchor_limits(model, networks.base_scale)
    with torch.no_grad():
        networks.blendshapes.positions *= 40
        # Too faint to be drawn, so that no pixel asks for anything.
        networks.blendshapes._spawned_mean()[..., 0] = 1e-3
        networks.blendshapes.shapes.zero_()
    groups = [ParameterGroup([networks.blendshapes.positions], 0.5)]
    options = {"stage": "", "steps": 8, "batch": 2, "size": SIZE, "final_rate": 0.1}
    fitting = Optimisation(networks, groups, frames, limits, **options)
    before = networks.blendshapes.positions.detach().norm(dim=-1).mean()
    fitting.run(SILENT)
    assert networks.blendshapes.positions.detach().norm(dim=-1).mean() < 0.98 * before


def test_the_rings_of_a_mouth_run_around_it():
    """Each row of vertices is a closed loop, those of the lips along the line between them."""
    model = load_head()
    rings = losses.mouth_rings(model)
    lips, inside = set(model.regions["lips"].tolist()), set(model.regions["mouth_inside"].tolist())
    ends = [{int(vertex) for vertex in edge} for edge in rings]
    on_lips = [edge for edge in ends if edge <= lips]
    assert all(edge <= lips or edge <= inside - lips for edge in ends) and len(ends) > len(on_lips) > 100
    along = rings[[edge <= lips for edge in ends]]
    steps = np.abs(model.template[along[:, 0]] - model.template[along[:, 1]])
    assert np.median(steps[:, 1]) < 0.3 * np.median(steps[:, 0])
    rows = mouth_rows(model)
    assert rows[rings[:, 0]].tolist() == rows[rings[:, 1]].tolist()
    assert np.unique(rings, return_counts=True)[1].min() == 2
    assert set(rows[model.regions["lips"]]) == set(range(1, rows.max() + 1))
    teeth = set(mouth_parts(model)["teeth"].tolist())
    assert not any(edge & teeth for edge in ends)
    bare = replace(model, regions=model.regions | {"mouth_inside": model.regions["mouth_inside"][:0]})
    assert len(losses.mouth_rings(bare)) == 0
    assert losses.ring_loss(SimpleNamespace(offsets=torch.zeros(1, 1, 3)), NO_RINGS, torch.zeros(0, 3)) == 0


def test_a_row_around_the_mouth_stays_closed_where_it_gets_twice_as_long():
    """Each Gaussian reaches half of the doubled edge; across the row it may be as flat as it will."""
    rings, edges = torch.tensor([[0, 1]]), torch.tensor([[0.0, 0.003, 0]])
    quarter = [math.sqrt(0.5), 0, 0, math.sqrt(0.5)]

    def loss(scales: list[list[float]], quaternions: list[list[float]]) -> float:
        scale = torch.tensor([scales])
        anchors = SimpleNamespace(
            offsets=torch.zeros(1, 2, 3),
            harmonics=torch.zeros(1, 2, 1, 3),
            scales=scale,
            quaternions=torch.tensor([quaternions]),
        )
        unlike = (scale[:, 0] / scale[:, 1]).log().square().sum()
        return float(losses.ring_loss(anchors, rings, edges) - unlike)

    flat, still = [0.0001, 0.003, 0.0001], [1.0, 0, 0, 0]
    assert loss([flat, flat], [still, still]) == pytest.approx(0, abs=1e-6)
    assert loss([flat, [0.0001, 0.0015, 0.0001]], [still, still]) == pytest.approx(0.25, abs=1e-4)
    # Turned by a quarter, its long axis lies across the row.
    assert loss([flat, flat], [still, quarter]) == pytest.approx((1 - 0.0001 / 0.003) ** 2, rel=1e-4)
    model = load_head()
    limits = anchor_limits(model, torch.full((len(model.template),), 0.005))
    between = model.template[limits.rings[:, 1]] - model.template[limits.rings[:, 0]]
    assert np.allclose(limits.ring_edges, between) and len(between) > 100


def test_the_least_scale_is_that_at_which_lips_start():
    model = load_head()
    base = torch.linspace(0.001, 0.002, len(model.template))
    least, lips = anchor_limits(model, base).least_scale, set(model.regions["lips"].tolist())
    assert lips and len(lips) < len(base)
    assert least.tolist() == pytest.approx([float(base[v]) if v in lips else 0 for v in range(len(base))])


def test_teeth_stay_in_their_row_and_as_small_as_teeth():
    model = load_head()
    limits, teeth = anchor_limits(model, torch.full((len(model.template),), 0.005)), mouth_parts(model)["teeth"]
    assert limits.offset[teeth].tolist() == pytest.approx([0.0015] * len(teeth))
    assert limits.scale[teeth].tolist() == pytest.approx([0.0025] * len(teeth))
    assert limits.scale[torch.as_tensor(model.regions["lips"])].tolist() == pytest.approx([0.015] * 228)
    # What teeth, tongue and wall spawn stays as near along the surface; on the face it may be two edges away.
    inside = model.regions["mouth_inside"]
    assert limits.reach[inside].tolist() == limits.offset[inside].tolist()
    assert limits.reach[torch.as_tensor(model.regions["lips"])].tolist() == pytest.approx([0.02] * 228)


def test_hair_may_lie_ten_times_as_far_from_its_vertex_as_the_face(small):
    model = small[2]
    base = torch.full((len(model.template),), 0.0005)
    base[0] = 0.004
    limits = anchor_limits(model, base)
    hair = set(np.concatenate([model.regions[name] for name in ("scalp", "neck", "boundary", "ears")]).tolist())
    for index, limit in enumerate(limits.offset.tolist()):
        assert limit == pytest.approx(0.03 if index in hair else 0.003)
    assert limits.scale[0] == pytest.approx(0.012) and limits.scale[1:].tolist() == pytest.approx(
        [0.002] * (len(base) - 1)
    )


def test_spawned_gaussians_may_be_thick_and_far_in_hair_alone(small):
    model = small[2]
    limits = anchor_limits(model, torch.full((len(model.template),), 0.0005))
    hair = set(np.concatenate([model.regions[name] for name in ("scalp", "neck", "boundary", "ears")]).tolist())
    assert 0 < len(hair) < len(model.template)
    expected = [0.006 if vertex in hair else 0.0015 for vertex in range(len(model.template))]
    assert limits.thickness.tolist() == pytest.approx(expected)
    outward = model.template / np.linalg.norm(model.template, axis=1, keepdims=True)
    assert (limits.normals.numpy() * outward).sum(1).min() > 0.9


def test_training_closes_what_is_seen_aslant(small, monkeypatch, tmp_path):
    given = []

    class Noted(Optimisation):
        def __init__(self, *arguments, **options) -> None:
            given.append(arguments[3])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(stages, "Optimisation", Noted)
    plan = replace(PRESETS["draft"], warmup_steps=2, steps=2, bust_steps=0, fewest_frames=2)
    train(small[0].folder, tmp_path / "a.effigy", plan=plan, size=SIZE, device="cpu")
    assert given[-1].least_breadth.max() > 0


def test_the_parts_of_the_loss_have_the_papers_weights(monkeypatch):
    raster, batch, background = random_images(3)
    limits = replace(
        limits_of_a_ball(torch.full((2,), 0.01), torch.full((2,), 0.002)),
        rings=torch.tensor([[0, 1]]),
        ring_edges=torch.tensor([[0, 0.004, 0]]),
    )
    offsets, harmonics = torch.zeros(1, 2, 3), torch.zeros(1, 2, 4, 3)
    # Three times the limit, and five millimetres from the other's.
    offsets[0, 0, 0], offsets[0, 1, 0] = 0.03, 0.025
    harmonics[0, 0, 1, 2] = 2.0
    scales = torch.tensor((0.001, 0.002))[None, :, None] * torch.ones(3)
    anchors = SimpleNamespace(
        offsets=offsets,
        scales=scales,
        opacities=torch.ones(1, 2),
        harmonics=harmonics,
        quaternions=torch.tensor([[[2.0, 0, 0, 0], [1, 0, 0, 0]]]),
    )
    parts = image_loss(raster, batch, background, None, 0) + 0.1 * losses.matte_loss(raster, batch)
    parts += 0.1 * (2**2 + 1.5**2) / 2 + 0.01 * (5**2 + 2**2 + 3 * math.log(2) ** 2)
    # Along an edge of 4 mm they reach 1 and 2 mm.
    parts += 0.01 * (0.75**2 + 0.5**2)
    torch.testing.assert_close(total_loss(raster, batch, anchors, limits, background), parts)
    other = random_images(4)[0]
    parts += image_loss(other, batch, background, None, 0) - 0.9 * image_loss(raster, batch, background, None, 0)
    torch.testing.assert_close(total_loss(raster, batch, anchors, limits, background, enhanced=other), parts)


def test_the_psnr_of_a_batch_is_over_white():
    raster, batch, _ = random_images(5)
    a = raster.color + (1 - raster.alpha)[..., None]
    b = batch.color * batch.matte[..., None] + (1 - batch.matte)[..., None]
    expected = -10 * math.log10(float(((a - b) ** 2).mean()))
    assert losses.batch_psnr(raster, batch) == pytest.approx(expected, rel=1e-5)


def test_every_row_comes_once_in_each_epoch_and_in_another_order(frames):
    count = len(frames)
    rows, drawn = torch.arange(count), []
    for step in range(count):
        drawn += rows_of_step(rows, 3, SEED, step).tolist()
    epochs = [drawn[start : start + count] for start in range(0, 3 * count, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]
    assert rows_of_step(rows, 3, SEED, 0).tolist() == drawn[:3]


@pytest.mark.parametrize(("until", "sizes"), [(0.0, [SIZE] * 8), (0.5, [SIZE // 2] * 4 + [SIZE] * 4)])
def test_a_stage_begins_with_images_of_half_the_size(small, frames, monkeypatch, until, sizes):
    drawn, batch = [], frames.batch
    monkeypatch.setattr(
        frames, "batch", lambda rows, size, fitted=None: drawn.append(size) or batch(rows, size, fitted)
    )
    optimisation = make_fitting(frames, small[2], coarse_until=until)
    optimisation.run(SILENT)
    # The frames of a step are drawn in parts, by as many workers as there are.
    assert drawn[:: len(drawn) // len(sizes)] == sizes


def test_presets_train_as_they_are_described():
    common = {"batch": 4, "size": 512, "validation": 0.05, "coarse_until": 0.5, "paper_parts": True}
    assert {
        "instant": Preset(256, 60, 220, frames=64, fewest_frames=1),
        "draft": Preset(256, 300, 4000, bust_steps=300),
        "standard": Preset(warmup_steps=500, steps=10000, bust_steps=600, **common),
        "full": Preset(warmup_steps=1000, steps=40000, bust_steps=1000, **common),
    } == PRESETS
    assert not any(preset.refinement and preset.fits_poses for preset in PRESETS.values()), "one replaces the other"


@pytest.mark.parametrize(
    ("generator", "fit_poses", "expected"),
    [("blendshapes", False, (0.5, 0, None)), ("unet", False, (0.0, 16, 32)), ("blendshapes", True, (0.0, 0, None))],
)
def test_a_preset_is_trained_by_its_plan(small, tmp_path, monkeypatch, generator, fit_poses, expected):
    """(coarse images until, channels of the enhancer, crop of the perceptual loss), with the eyes in both stages."""
    monkeypatch.setitem(presets.PAPER_PARTS, "perceptual_crop", 32)
    plan = Preset(SIZE, 1, 1, coarse_until=0.5, paper_parts=True)
    monkeypatch.setitem(PRESETS, "standard", plan)
    made, plain = [], stages.Optimisation

    def watched(*given, **options):
        made.append(options)
        return plain(*given, **options)

    monkeypatch.setattr(stages, "Optimisation", watched)
    path = tmp_path / "head.effigy"
    avatar = train(small[0].folder, path, preset="standard", generator=generator, fit_poses=fit_poses, head_only=True)
    warmup, training = made
    assert isinstance(warmup["visible_eyes"], VisibleEyes) and isinstance(training["visible_eyes"], VisibleEyes)
    crop = training["perceptual_crop"] or None
    assert (training["coarse_until"], avatar.settings.enhancer_width, crop) == expected
    assert (training["pose_refiner"] is not None) == (generator == "unet")


def test_steps_of_half_the_size_count_for_less_of_the_bar(small, frames):
    class Bar(Progress):
        shares: ClassVar[list[float]] = []

        def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
            self.shares.append(done / total)

    make_fitting(frames, small[2], steps=100, coarse_until=0.5, size=SIZE // 4).run(bar := Bar())
    assert bar.shares[49] == pytest.approx(0.45 / 1.45, abs=0.01) and bar.shares[-1] == 1
    assert bar.shares == sorted(bar.shares)


def test_the_paper_s_method_has_its_parts_beside_the_u_nets():
    assert find_preset("draft", paper=True) == PRESETS["draft"]
    found = find_preset("standard", paper=True)
    assert (found.refinement, found.enhancer_width, found.perceptual_crop) == (True, 16, 128)
    assert replace(found, refinement=False, enhancer_width=0, perceptual_crop=0) == PRESETS["standard"]


@pytest.mark.parametrize(("seconds_per_step", "saved_at"), [(1, [6]), (EVERY_SECONDS / 2.5, [3, 6, 6])])
def test_a_checkpoint_is_written_when_the_time_has_come_and_at_the_end(monkeypatch, seconds_per_step, saved_at):
    clock, saved = [0.0], []
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])
    running = session.TrainingSession(None, {}, SILENT, None)
    running.last_preview = math.inf

    def save(optimisation, stage):
        saved.append(optimisation.step)
        running.last_saved = clock[0]

    def run(progress, after_step, part):
        for stages.step in range(1, 7):
            clock[0] += seconds_per_step
            after_step(stages)

    stages = SimpleNamespace(step=0, run=run)
    monkeypatch.setattr(running, "save", save)
    running.run(stages, "train")
    assert saved == saved_at
