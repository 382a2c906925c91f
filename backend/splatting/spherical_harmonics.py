"""View-dependent colour: real spherical harmonics up to degree 3, as in 3D Gaussian Splatting.

A coefficient array is (..., K, 3): K = (degree + 1)² functions, ordered by degree l and within it by m = -l … l, for
each of red, green, blue. Colour is 0.5 plus their sum, not below 0 (Kerbl et al. 2023 and its released program), so
that coefficients of zero are mid grey.
"""

from __future__ import annotations

import torch

from ..errors import EffigyError

C0 = 0.28209479177387814
"""The constant function, ½ √(1/π): colour = 0.5 + C0 · first coefficient when there are no others."""
C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)
MAX_DEGREE = 3


def basis(degree: int, directions: torch.Tensor) -> torch.Tensor:
    """Unit directions (..., 3) → values (..., K) of the K functions, with the Condon-Shortley sign, as in 3DGS."""
    if not 0 <= degree <= MAX_DEGREE:
        raise EffigyError(f"Spherical harmonics of degree {degree} are not supported; choose 0 to {MAX_DEGREE}.")
    x, y, z = directions.unbind(-1)
    functions = [torch.full_like(x, C0)]
    if degree == 0:
        return torch.stack(functions, -1)
    functions += [-C1 * y, C1 * z, -C1 * x]
    if degree == 1:
        return torch.stack(functions, -1)
    xx, yy, zz = x * x, y * y, z * z
    functions += [
        C2[0] * x * y, -C2[0] * y * z, C2[1] * (2 * zz - xx - yy), -C2[0] * x * z, C2[2] * (xx - yy),
    ]  # fmt: skip
    if degree >= 3:
        functions += [
            -C3[0] * y * (3 * xx - yy),
            C3[1] * x * y * z,
            -C3[2] * y * (4 * zz - xx - yy),
            C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -C3[2] * x * (4 * zz - xx - yy),
            C3[4] * z * (xx - yy),
            -C3[0] * x * (xx - 3 * yy),
        ]
    return torch.stack(functions, -1)


def evaluate(degree: int, directions: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Colours (B, G, 3) seen along `directions` (B, G, 3), from the camera to each Gaussian, of any length.

    `coefficients` is (B, G, K, 3) with at least (degree + 1)² functions; those of higher degrees are ignored.
    """
    count = (degree + 1) ** 2
    if coefficients.shape[-2] < count or coefficients.shape[-1] != 3:
        raise EffigyError(
            f"Degree {degree} needs {count} spherical harmonics of 3 colours, but the array ends in "
            f"{tuple(coefficients.shape[-2:])}."
        )
    functions = basis(degree, torch.nn.functional.normalize(directions, dim=-1))
    return ((functions[..., None] * coefficients[..., :count, :]).sum(-2) + 0.5).clamp_min(0.0)
