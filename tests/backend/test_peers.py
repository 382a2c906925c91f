"""The benchmarks of what other papers do instead: they train, and what they compare is what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_capture import SIZE, make_small_capture

from backend.avatar.avatar import build_networks
from backend.avatar.settings import GENERATORS, AvatarSettings
from backend.training.projection import Observations, fused_colors
from bench import learnt_fusion
from bench.learnt_fusion import Gates, error, known, learn, straight_mean
from bench.peer_generators import FreeShapes, NeuralDynamics, laplacian_energy
from bench.peers import NAMES, cycle
from bench.peers import main as compare_peers


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory):
    return make_small_capture(tmp_path_factory.mktemp("peers"), frames=15)


def networks_of(small):
    model = small[2]
    settings = AvatarSettings(size=SIZE, **GENERATORS["blendshapes"])
    return build_networks(settings, model, small[1].identity), torch.from_numpy(model.template)


def test_every_peer_is_trained_and_scored(small, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["peers", str(small[0].folder), "--steps", "2", "--size", str(SIZE)])
    compare_peers()
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows] == [*NAMES]
    assert all(row[2] == "2" and 10 < float(row[3]) < 60 for row in rows)


def test_the_dynamics_move_each_gaussian_by_its_latent_and_the_expression(small) -> None:
    networks, vertices = networks_of(small)
    peer = NeuralDynamics(networks, vertices, torch.nn.functional.normalize(vertices, dim=-1), width=16, rate=1e-3)
    conditions = torch.zeros(2, peer.conditions)
    conditions[1, 0] = 1.0
    geometry, appearance, spawned = peer(conditions)
    assert spawned is not None
    for moved in (geometry, appearance[..., :4], spawned.positions, spawned.opacity, spawned.color, spawned.rotation):
        assert (moved[0] - moved[1]).abs().max() > 0
    with torch.no_grad():
        peer.latents[7, 0] += 1.0
    changed = (peer(conditions)[0] - geometry).abs().amax((0, 2)) > 0
    assert changed.nonzero().flatten().tolist() == [7], "and by no other latent"
    assert torch.equal(peer(conditions)[2].positions, spawned.positions)


def test_smoothness_counts_differences_between_neighbours(small) -> None:
    networks, _ = networks_of(small)
    peer = FreeShapes(networks, shapes=4)
    degree = torch.bincount(peer.hierarchy.edges.flatten(), minlength=len(peer.mean)).float()
    smooth = degree.sqrt()[None, :, None]
    assert laplacian_energy(peer.hierarchy, smooth) < 1e-5
    rough = torch.randn(1, len(peer.mean), 3)
    assert laplacian_energy(peer.hierarchy, rough) > 0.5


def test_a_forward_field_is_distilled_from_a_backward_one(small) -> None:
    untaught, taught = cycle(small[0].folder, 1), cycle(small[0].folder, 240)
    assert untaught["forward"] > 0.9 * untaught["moved"]
    assert taught["backward"] < 0.7 * taught["moved"]
    assert taught["forward"] < 0.95 * taught["moved"], "although it saw no posed vertex itself"


def observations(frames: int, wrong: float, seed: int) -> tuple[Observations, torch.Tensor]:
    """Vertices of random colours, of which each frame shows a share `wrong` in another colour; the true colours."""
    random = torch.Generator().manual_seed(seed)
    truth = torch.rand(400, 3, generator=random)
    colors = truth + 0.02 * torch.randn(frames, 400, 3, generator=random)
    outliers = torch.rand(frames, 400, generator=random) < wrong
    colors[outliers] = torch.rand(int(outliers.sum()), 3, generator=random)
    straight = torch.rand(frames, 400, generator=random)
    straight[torch.rand(frames, 400, generator=random) < 0.3] = 0
    return Observations(colors, torch.ones(frames, 400), straight), truth


def test_untrained_gates_are_the_mean_by_straightness() -> None:
    seen, _ = observations(6, 0.2, seed=1)
    shown = known(seen)
    torch.testing.assert_close(Gates()(seen)[shown], straight_mean(seen)[shown], rtol=1e-3, atol=1e-3)


def test_gates_learn_what_a_mean_cannot(monkeypatch) -> None:
    monkeypatch.setattr(learnt_fusion, "TARGETS", 1)
    people = []
    for seed in range(3):
        seen, truth = observations(8, 0.25, seed)
        people.append((seen, Observations(truth[None], torch.ones(1, 400), torch.ones(1, 400))))
    gates = learn(people[:2], 60)
    seen, targets = people[2]
    errors = [float(error(fusion(seen), targets, known(seen))) for fusion in (straight_mean, gates, fused_colors)]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.9 * errors[0], "as the closed form does"


def test_fusions_are_compared_on_rendered_people_and_on_a_capture(small, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(learnt_fusion, "LONGEST", 2)
    monkeypatch.setattr(learnt_fusion, "TARGETS", 2)
    options = ["--people", "1", "--tests", "1", "--steps", "2", "--frames", "1", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["learnt_fusion", str(small[0].folder), *options])
    learnt_fusion.main()
    table = capsys.readouterr().out
    for shown in ("rendered people", "ball"):
        assert all(f"| {shown} | {name} |" in table for name in ("mean", "closed form", "learnt gates"))
    people = [line.split(" | ")[2:] for line in table.splitlines() if line.startswith("| rendered people")]
    assert all(10 < float(cell.split(" ")[0]) < 50 for row in people for cell in row)
