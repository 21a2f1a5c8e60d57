"""XLA's flags for tests, of this process and of those that it starts."""

# Tests compile far more than they compute: with fewer of LLVM's optimisations the suite is much faster. The programs,
# the order of their sums and what they need of memory are decided before. (Without any, T5 misses its golden's 1e-5.)
QUICK = "--xla_backend_optimization_level=1"


def devices(count: int) -> str:
    """For a process with so many virtual CPU devices."""
    return f"--xla_force_host_platform_device_count={count} {QUICK}"
