"""XLA's flags for tests, of this process and of those that it starts."""

# Tests compile far more than they compute: without LLVM's optimisations the suite takes half the time. The programs,
# the order of their sums and what they need of memory are decided before.
QUICK = "--xla_backend_optimization_level=0"


def devices(count: int) -> str:
    """For a process with so many virtual CPU devices."""
    return f"--xla_force_host_platform_device_count={count} {QUICK}"
