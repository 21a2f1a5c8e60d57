"""What devices can do at most, as their makers publish it."""

import jax

# Dense bfloat16 TFLOP/s of one device, as published; the first name that the device's kind holds counts.
PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100": 989.4,
    "A100": 312.0,
    "TPU v6": 918.0,
    "TPU v5p": 459.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v4": 275.0,
}


def published_peak(device: jax.Device) -> float | None:
    """Dense bfloat16 TFLOP/s of a device, None for one without a published figure here."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device.device_kind), None)
