#!/usr/bin/env bash
# Settings for NVIDIA GPU hosts, one reason each. Use it before any command:  source launch/env_gpu.sh && osjax demo

gpu_flags=(
  --xla_gpu_enable_latency_hiding_scheduler=true                   # start collectives early, so that matmuls hide them
  --xla_gpu_enable_while_loop_double_buffering=true                # gather the next block's weights while this one runs (scan)
  --xla_gpu_all_gather_combine_threshold_bytes=134217728           # join small weight gathers: NCCL is slow on small messages
  --xla_gpu_reduce_scatter_combine_threshold_bytes=67108864        # same for gradient scatters
  --xla_gpu_all_reduce_combine_threshold_bytes=134217728           # same for gradient sums over `data`
)
export XLA_FLAGS="${gpu_flags[*]} ${XLA_FLAGS:-}"                  # yours come last and win
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"  # the default of 0.75 wastes memory; NCCL needs the rest
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/osjax-xla}"  # a restart does not compile again
