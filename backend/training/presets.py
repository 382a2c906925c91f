"""How long and how carefully to train. Each number's reason stands beside it; figures: bench/results/ablation.md, training.md."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import EffigyError


@dataclass(frozen=True)
class Preset:
    size: int
    """Side of the training pictures, pixels."""
    warmup_steps: int
    """Free Gaussians at half size: they level off after about 300 steps of 4 frames."""
    steps: int
    batch: int = 4
    """Frames a step; cores work on them in parallel, so fewer leave cores idle."""
    refinement: bool = True
    """Graph-guided optimisation of the track; see `backend.avatar.pose_refinement`. On a CPU a step takes 30 % longer with it; a
    synthetic clip whose track was disturbed by 1.5 degrees and 4 mm gains 4 dB on held-out frames."""
    enhancer_width: int = 0
    """Channels of the enhancer's finest block; 0: without one."""
    perceptual_crop: int = 0
    """Side of the crop of each frame that the perceptual loss looks at, pixels; 0: without it."""
    validation: float = 0.0
    """Share of the training frames that is kept from training to choose the weights by; see `backend.training.validation`."""


PRESETS = {
    # 3.8 to 4.5 steps a second were measured on two cores: 11 minutes. The perceptual crop would take half of them, the
    # refinement of the track a third, and twelve minutes are better spent on steps.
    "draft": Preset(size=256, warmup_steps=300, steps=2600, refinement=False),
    # It has no frames to spare for validation: its steps end long before more of them could harm.
    # In one CPU thread the enhancer takes 70 ms a picture of 512 squared (20 ms at 256) and makes a training step 60 % longer;
    # in the few steps of a draft it hardly begins to help.
    "standard": Preset(
        size=512, warmup_steps=500, steps=10000, perceptual_crop=128, enhancer_width=16, validation=0.05
    ),
    "full": Preset(size=512, warmup_steps=1000, steps=40000, perceptual_crop=128, enhancer_width=16, validation=0.05),
}


def find_preset(name: str) -> Preset:
    if name not in PRESETS:
        raise EffigyError(f"There is no preset “{name}”: choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]
