"""How much memory a device has for arrays."""

import os

import jax


def bytes_of(device: jax.Device) -> int:
    """Bytes of a device of this process, as its runtime says; of a processor its share of the machine's memory."""
    stats = device.memory_stats() or {}
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(jax.local_devices())
    return int(stats.get("bytes_limit", machine))
