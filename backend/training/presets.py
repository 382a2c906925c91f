"""Training presets. The reason for each number is given here; the measurements are in bench/results/ablation.md and
training.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ..errors import EffigyError

MOST_FRAMES = 3000
"""A longer clip is thinned evenly to this many frames: they take 0.8 GB at 256 x 256, and neighbours at 25 frames a
second differ little."""
FIT_AT = 0.35
"""Fraction of a training after which its avatar fits the poses."""
MOST_FITTED = 150
"""Frames whose poses are fitted by an avatar in training. What is found for those between is interpolated."""
FEWEST_FRAMES = 8
"""A clip with fewer good frames is refused."""


@dataclass(frozen=True)
class Preset:
    size: int
    """Width and height of the training images, pixels."""
    warmup_steps: int
    """Steps of the free Gaussians at half the image size; their error levels off after about 300 steps of 4 frames."""
    steps: int
    batch: int = 4
    """Frames per step. They are processed in parallel, so a smaller batch leaves CPU cores idle."""
    coarse_until: float = 0.0
    """Fraction of the training in which images of half the size are drawn, which take less time and leave the detail to
    the rest. Not with an enhancer, nor where poses are fitted. While there are few steps, images of half the size are
    far ahead at 512 x 512; at 256 x 256 the two halves are as good as whole images throughout
    (bench/results/detail.md)."""
    refinement: bool = False
    """Whether the tracked poses are refined during training; see `backend.avatar.pose_refinement`. A step on a CPU
    takes 30 % longer with it. A synthetic clip whose track was disturbed by 1.5 degrees and 4 mm gains 4 dB on held-out
    frames whose own poses are right, and 0.8 dB on frames whose poses are as wrong as those of training."""
    fits_poses: bool = False
    """Whether the avatar fits the poses on its way, and is trained in both; see `backend.training.fitted_poses`. Not
    together with `refinement`. No preset does it by itself: held-out frames lose 0.1 to 0.5 dB as tracked where they
    gain 0.1 to 0.5 in poses that the avatar finds (bench/results/training.md)."""
    enhancer_width: int = 0
    """Channels of the enhancer's finest block; 0 means no enhancer."""
    perceptual_crop: int = 0
    """Width and height of the crop of each frame on which the perceptual loss is taken, pixels; 0 means no such
    loss."""
    validation: float = 0.0
    """Fraction of the training frames kept out of training to select the weights; see `backend.training.validation`."""
    frames: int = MOST_FRAMES
    """At most."""
    fewest_frames: int = FEWEST_FRAMES
    bust_steps: int = 0
    """Steps for the bust, after the head is finished; 0 means no bust."""
    paper_parts: bool = False
    """Whether the paper's U-Nets are trained with PAPER_PARTS."""


PAPER_PARTS: Final = {"refinement": True, "enhancer_width": 16, "perceptual_crop": 128}
"""What the paper trains beside its two U-Nets. At equal processor time none of the three gains anything on held-out
frames of blendshapes (bench/results/detail.md: 4 minutes, enhancer and perceptual loss in the last one), so that only
who asks for the paper's method gets them."""


# What draft reaches on footage is in bench/results/generators.md, and with the U-Nets in training.md, with standard as
# far as it was measured. Full was not: it differs from standard by its steps alone.
PRESETS = {
    # Something to drive within 30 seconds of processor time, reading its frames included (bench/results/instant.md).
    "instant": Preset(size=256, warmup_steps=60, steps=220, frames=64, fewest_frames=1),
    # 8.3 minutes of processor time with blendshapes at 256 x 256 (bench/results/instant.md); a step of the U-Nets takes
    # 1.6 times as long (generators.md). Validation frames are not needed, because training ends long before it could
    # overfit. The bust takes 0.6 minutes more (bench/results/bust.md).
    "draft": Preset(size=256, warmup_steps=300, steps=4000, bust_steps=300),
    "standard": Preset(
        size=512,
        warmup_steps=500,
        steps=10000,
        coarse_until=0.5,
        validation=0.05,
        bust_steps=600,
        paper_parts=True,
    ),
    "full": Preset(
        size=512,
        warmup_steps=1000,
        steps=40000,
        coarse_until=0.5,
        validation=0.05,
        bust_steps=1000,
        paper_parts=True,
    ),
}


WARMUP_SHARE = 0.1
"""Fraction of the user's minutes that the free Gaussians get. Their loss levels off long before, but the networks
start from their result."""
BUST_SHARE = 0.1
"""The bust takes at most this share of the user's minutes, after them."""


def find_preset(name: str, *, paper: bool = False) -> Preset:
    """The preset of this name; for the `paper`'s method with what that adds, if the preset says so."""
    if name not in PRESETS:
        raise EffigyError(f"There is no preset “{name}”: choose one of {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    return replace(preset, **PAPER_PARTS) if paper and preset.paper_parts else preset
