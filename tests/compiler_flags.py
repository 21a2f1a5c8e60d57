"""XLA's flags for tests, of this process and of those that it starts."""

import jaxlib
from packaging.version import Version

# Tests compile far more than they compute: without LLVM's optimisations the suite is much faster. The programs, the
# order of their sums and what they need of memory are decided before. Modules marked `optimised` compare what LLVM's
# fused multiply-adds change, such as T5's golden, and have a few optimisations (the level in QUICK).
QUICK = "--xla_backend_optimization_level=1"
if Version(jaxlib.__version__) < Version("0.11"):  # later ones do not know the flag, and stop at it
    QUICK += " --xla_cpu_use_fusion_emitters=false"  # they take three times as long to compile


def devices(count: int) -> str:
    """For a process with so many virtual CPU devices."""
    return f"--xla_force_host_platform_device_count={count} {QUICK}"
