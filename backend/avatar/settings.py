"""What an avatar is made of: sizes of its networks, stored in its file so that it can be built again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..errors import EffigyError


@dataclass(frozen=True)
class AvatarSettings:
    """Sizes of a GraphAvatar; the defaults are those of the paper where it gives one (section 4.1 and our reading of
    the released code), and say why where they differ.
    """

    size: int = 256
    """Side of the square pictures it was trained on, pixels."""
    position_bands: int = 6
    """Frequency bands of the vertices' positions; see `backend.avatar.encoding` for what a number resolves."""
    normal_bands: int = 2
    filters: int = 16
    latent_size: int = 8
    chebyshev_order: int = 6
    sh_degree: int = 1
    """Spherical harmonics of the anchors. The paper has degree 3: a clip shows each point from a narrow cone only, and
    the 45 free coefficients then say whatever they like to an animator's camera outside of it."""
    neural_per_anchor: int = 2
    feature_size: int = 16
    neural_width: int = 32
    enhancer_width: int = 0
    """Channels of the enhancer's finest block; 0: none, as in avatars from before there was one."""

    def to_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, int]) -> AvatarSettings:
        known = {field.name for field in dataclasses.fields(AvatarSettings)}
        unknown = set(values) - known
        if unknown:
            raise EffigyError(
                f"The avatar has settings that this Effigy does not know ({', '.join(sorted(unknown))}): "
                "update Effigy to open it."
            )
        return AvatarSettings(**values)
