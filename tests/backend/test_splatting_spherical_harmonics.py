"""The spherical harmonics follow the convention of 3D Gaussian Splatting files."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import sph_harm_y

from backend.errors import EffigyError
from backend.splatting.spherical_harmonics import basis, evaluate


def test_basis_is_the_real_form_of_the_textbook_functions():
    """√2 Re Y_l^m for m > 0, √2 Im Y_l^|m| for m < 0, Condon-Shortley sign included (scipy's Y)."""
    directions = torch.nn.functional.normalize(
        torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    polar, azimuth = torch.acos(directions[:, 2]).numpy(), torch.atan2(directions[:, 1], directions[:, 0]).numpy()
    functions = basis(3, directions).numpy()
    k = 0
    for degree in range(4):
        for m in range(-degree, degree + 1):
            complex_form = sph_harm_y(degree, abs(m), polar, azimuth)
            part = complex_form.imag if m < 0 else complex_form.real
            assert functions[:, k] == pytest.approx((math.sqrt(2) if m else 1) * part, abs=1e-12), (degree, m)
            k += 1


def test_zero_coefficients_are_mid_grey_and_colours_never_negative():
    directions = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(2))
    coefficients = torch.zeros(1, 4, 16, 3)
    assert torch.equal(evaluate(3, directions, coefficients), torch.full((1, 4, 3), 0.5))
    coefficients[:, :, 0] = -10
    assert float(evaluate(3, directions, coefficients).abs().max()) == 0


def test_direction_length_does_not_matter_and_higher_degrees_are_left_out():
    generator = torch.Generator().manual_seed(3)
    directions = torch.randn(2, 5, 3, generator=generator)
    coefficients = 0.1 * torch.randn(2, 5, 16, 3, generator=generator)
    torch.testing.assert_close(evaluate(3, 7 * directions, coefficients), evaluate(3, directions, coefficients))
    torch.testing.assert_close(evaluate(1, directions, coefficients), evaluate(1, directions, coefficients[:, :, :4]))


def test_too_few_coefficients_are_refused():
    with pytest.raises(EffigyError, match="needs 16 spherical harmonics"):
        evaluate(3, torch.zeros(1, 2, 3), torch.zeros(1, 2, 9, 3))
