"""The ways to train detail that `bench.detail` compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CROP: Final = 128
"""Width and height of the perceptual loss's crop, pixels."""


@dataclass(frozen=True)
class Variant:
    title: str
    scale: int = 1
    """Trained on images of the size divided by this."""
    patch_every: int = 0
    crop: int = 0
    refinement: bool = False
    enhancer_first: bool = False
    """Whether an enhancer is trained from the first step on."""
    enhancer_share: float = 0.0
    """Share of the minutes in which an enhancer alone is trained at the end."""
    enhancer_crop: int = 0
    """Of the perceptual loss in those."""
    doubling: bool = False
    """Whether that enhancer doubles images of half the size."""
    fine_from: float = 0.0
    """Fraction of the minutes until which whole images at half size are trained on."""
    perceptual_from: float = 0.0
    """Fraction of the minutes from which `crop` is used."""


VARIANTS: Final = {
    "half": Variant("whole images at half size", scale=2),
    "full": Variant("whole images at full size"),
    "patches": Variant("patches in every second step", patch_every=2),
    "patches4": Variant("patches in every fourth step", patch_every=4),
    "last": Variant("patches, enhancer in the last quarter", patch_every=2, enhancer_share=0.25),
    "last_perceptual": Variant(
        "the same with the perceptual loss", patch_every=2, enhancer_share=0.25, enhancer_crop=CROP
    ),
    "doubling": Variant(
        "patches, 2x super-resolution in the last quarter", patch_every=2, enhancer_share=0.25, doubling=True
    ),
    "enhancer": Variant("whole images at half size, enhancer from the start", scale=2, enhancer_first=True),
    "perceptual": Variant("patches, perceptual loss", patch_every=2, crop=CROP),
    "refinement": Variant("patches, pose refinement", patch_every=2, refinement=True),
    "fine": Variant("whole images at half size, patches in the last half", patch_every=2, fine_from=0.5),
    "half_full": Variant("whole images at half size, at full size in the last half", fine_from=0.5),
    "full_last": Variant("whole images at full size, enhancer in the last quarter", enhancer_share=0.25),
    "full_last_perceptual": Variant("the same with the perceptual loss", enhancer_share=0.25, enhancer_crop=CROP),
    "full_perceptual": Variant(
        "whole images at full size, perceptual loss in the last quarter", crop=CROP, perceptual_from=0.75
    ),
    "full_refinement": Variant("whole images at full size, pose refinement", refinement=True),
}
