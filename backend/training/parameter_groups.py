"""The learning rate of every trained parameter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from ..avatar.graph_avatar import GraphAvatar
from .capture_light import CaptureLight
from .pose_refinement import PoseRefiner

REFINEMENT_LEARNING_RATE = 1e-2
"""Ten times the learning rate of the graph networks: each frame is visited a few dozen times only, within which its
pose offset must converge."""
BLENDSHAPE_RATE = 8.0
"""Factor on the learning rates of blendshapes. Within 220 steps factors of 1, 2, 4, 8 and 16 reach 24.9, 25.6, 26.1,
26.7 and 26.1 dB on the held-out frames of one clip, within 850 steps of half the image size 27.8, 28.2, 28.0 and 28.2
(bench/results/training.md)."""
LEAKED_GRADIENT = 1e-6
"""Between the gradients of blendshapes' vertices that frames show (median 3e-7 to 8e-7, at most 1e-5) and those that
leak through hair to vertices that none shows (1e-8 and less). Without it the latter got red, green and cyan spots, seen
from 45 degrees beside the clip's views; held-out frames gain 0.04 dB."""
LIGHT_LEARNING_RATE = 5e-3
"""Between those of the free Gaussians and of the networks: every frame of a capture constrains its twelve numbers."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    parameters: Iterable[nn.Parameter]
    learning_rate: float
    """At the first step; it decays as `Optimisation` describes."""
    least_gradient: float = 1e-15
    """Gradients far below it move a parameter by less than a full step of Adam (its epsilon)."""


def parameter_groups(networks: GraphAvatar) -> list[ParameterGroup]:
    """The networks' parameters with their learning rates, in three groups.

    The graph networks of U-Nets have the learning rate of the released GraphAvatar code; the neural Gaussians and the
    enhancer have twice that. Per-vertex parameters have five times that of the graph networks: few pixels constrain
    each one. Blendshapes have BLENDSHAPE_RATE times as much of both.
    """
    per_vertex, graph, neural = [], [], []
    for name, parameter in networks.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith(("bias_output", "blendshapes.mean", "blendshapes.positions", "blendshapes.latents")) or (
            name.startswith("neural") and (name.endswith((".bias", "offsets")) and "from_" not in name)
        ):
            per_vertex.append(parameter)
        else:
            (neural if name.startswith(("neural", "enhancer")) else graph).append(parameter)
    rest = ParameterGroup(neural, 2e-3)
    if networks.blendshapes is None:
        return [ParameterGroup(per_vertex, 5e-3), ParameterGroup(graph, 1e-3), rest]
    return [
        ParameterGroup(per_vertex, BLENDSHAPE_RATE * 5e-3, LEAKED_GRADIENT),
        ParameterGroup(graph, BLENDSHAPE_RATE * 1e-3),
        rest,
    ]


def groups_beside_avatar(pose_refiner: PoseRefiner | None, light: CaptureLight | None) -> list[ParameterGroup]:
    """What is trained in every stage and is no part of the avatar."""
    refined = [ParameterGroup(pose_refiner.refinement.parameters(), REFINEMENT_LEARNING_RATE)] if pose_refiner else []
    return refined + ([ParameterGroup(light.parameters(), LIGHT_LEARNING_RATE)] if light else [])
