"""The rows of `bench.faults` in their short form, in their sandbox."""

from __future__ import annotations

import pytest

from bench.fault_sandbox import missing_sandbox
from bench.faults import row_names, try_rows

pytestmark = pytest.mark.skipif(missing_sandbox() is not None, reason=str(missing_sandbox()))


@pytest.mark.parametrize("name", row_names())
def test_nothing_fails_in_the_short_form_of(name):
    (row,) = try_rows([name], seed=0, short=True, counts={})
    assert row.outcome.tried > 0
    assert row.outcome.failures == []
