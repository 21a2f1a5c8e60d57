"""Layouts of files by their names."""

import pytest

from osjax import weights
from osjax.errors import UserError


def test_a_layout_goes_by_its_name_and_an_unknown_one_is_refused_with_those_there_are():
    assert weights.layout_named("flux", "--layout") == weights.FLUX != weights.layout_named("open_sora_v2", "--layout")
    with pytest.raises(
        UserError, match="^start.layout is 'fluks': use one of open_sora_v2, flux, flux_diffusers$"
    ) as refused:
        weights.layout_named("fluks", "start.layout")
    assert refused.value.status == 2
