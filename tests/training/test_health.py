"""Health: what counts as trouble, and since when."""

from osjax.training.health import Health, HealthConfig, Illness


def fed(health, losses, skipped=None):
    """Every answer to a sequence of losses."""
    skipped = skipped or [0] * len(losses)
    return [health.observe(step, loss, count) for step, (loss, count) in enumerate(zip(losses, skipped, strict=True))]


def test_non_finite_updates_in_a_row_are_trouble_and_scattered_ones_are_not():
    row = fed(Health(HealthConfig(max_skipped=3), 0), [1.0] * 6, [0, 0, 1, 2, 3, 3])
    assert row[:4] == [None] * 4 and row[4].since == 2 and "3 updates in a row" in row[4].reason
    assert fed(Health(HealthConfig(max_skipped=2), 0), [1.0] * 6, [1, 1, 2, 2, 3, 3]) == [None] * 6


def test_a_lasting_spike_is_trouble_and_a_single_one_is_not():
    cfg = HealthConfig(spike_factor=3.0, spike_window=4, spike_steps=2)
    lasting = fed(Health(cfg, 0), [1.0, 1.1, 0.9, 1.0, 9.0, 8.0])
    assert lasting[:5] == [None] * 5
    assert lasting[5] == Illness("the loss stayed above 3 times its median 1 up to step 5", 4)
    assert fed(Health(cfg, 0), [1.0, 1.1, 0.9, 1.0, 9.0, 1.0, 9.0]) == [None] * 7
    assert fed(Health(HealthConfig(), 0), [1.0] * 200 + [900.0] * 20) == [None] * 220  # off unless asked for


def test_the_high_losses_of_a_young_run_are_no_spike():
    cfg = HealthConfig(spike_factor=2.0, spike_window=50, spike_steps=1)
    assert fed(Health(cfg, 0), [0.1] * 10 + [5.0] * 10) == [None] * 20
