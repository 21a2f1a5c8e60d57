"""The time of a step kernel by kernel: what each line is made of, and what saving attention spares."""

from dataclasses import replace

import pytest

from osjax.models.mmdit.config import MMDiTConfig
from osjax.planning import cost, kernels, targets
from osjax.planning.hlo import Collective

WAYS = {"data": 8, "fsdp": 2, "sequence": 4, "tensor": 1}
H200 = targets.parse("h200x64")
ROWS, TOKENS = 48, 58_312
BLOCKS, D = 57, 3072
ATTENDED = 4 * ROWS * TOKENS**2 * D * BLOCKS
FORWARD = ATTENDED + 24 * D**2 * TOKENS * ROWS * BLOCKS


def expected(remat, collectives=(), **changes):
    cfg = replace(MMDiTConfig(), remat=remat, **changes)
    return kernels.expected(cfg, FORWARD, ROWS, TOKENS, 18 * 10**9, WAYS, collectives, H200)


def test_products_and_attention_take_their_passes_at_their_rates():
    at, step = kernels.rates(H200), expected("full")
    assert step.products == pytest.approx(4 * (FORWARD - ATTENDED) / (64 * at.products * 1e12))
    assert step.attention == pytest.approx((2 + 2.5) * ATTENDED / (64 * at.attention * 1e12))
    assert step.mfu(FORWARD, H200) == pytest.approx(3 * FORWARD / (step.seconds * 64 * 989.4e12))


def test_saved_attention_spares_one_of_its_passes_and_nothing_else():
    again, once = expected("full"), expected("save_attention")
    passed = ATTENDED / (64 * kernels.rates(H200).attention * 1e12)
    assert again.seconds - once.seconds == pytest.approx(passed)
    assert expected("offload_save_attention") == once and expected("offload") == again
    assert once.mfu(FORWARD, H200) > 0.44 > 0.38 > again.mfu(FORWARD, H200)  # stage 3 on H200


def test_blocks_that_keep_everything_run_once():
    some = expected("save_attention", remat_blocks=(19, 27))
    assert some.products == pytest.approx(expected("none").products * (3 + 46 / 57) / 3)
    assert some.attention == expected("none").attention == expected("save_attention").attention


def test_sending_beside_the_blocks_counts_where_it_lasts_longer_and_exchanges_always():
    gathered = Collective("all-gather", ("fsdp",), 1, 45 * 10**9)
    exchanged = Collective("all-to-all", ("sequence",), 1, 45 * 10**9)
    alone, beside, between = expected("none"), expected("none", [gathered]), expected("none", [exchanged])
    assert beside.hidden == pytest.approx(cost.sending([gathered], WAYS, H200)) == pytest.approx(0.1)
    assert beside.seconds == alone.seconds and between.seconds == pytest.approx(alone.seconds + 0.1)
    slow = replace(gathered, bytes=10**14)
    assert expected("none", [slow]).seconds > expected("none", [slow]).hidden > alone.seconds


@pytest.mark.parametrize("target", ["h200x64", "v5p-128", "v6e-256"])
def test_no_rate_is_above_what_a_chip_can_do(target):
    chip, at = targets.parse(target).chip, kernels.rates(targets.parse(target))
    assert 0 < at.attention_backward <= at.attention <= at.products < chip.tflops and at.memory < chip.hbm_gbps
    assert "assumed" in at.says
