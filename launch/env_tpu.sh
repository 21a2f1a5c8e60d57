#!/usr/bin/env bash
# Settings for TPU hosts, one reason each; docs/multihost.md has what was left out. Use it before any command:  source launch/env_tpu.sh && osjax demo

tpu_flags=(
  --xla_tpu_enable_async_collective_fusion=true                    # run collectives beside matmuls instead of between them
  --xla_tpu_enable_async_collective_fusion_multiple_steps=true     # let one collective hide behind several matmuls
  --xla_tpu_overlap_compute_collective_tc=true                     # let the tensor core compute while a collective is under way
  --xla_enable_async_all_gather=true                               # split each gather into start and done, so it can be hidden
  --xla_enable_async_collective_permute=true                       # same for ring attention's passing of keys and values
  --xla_tpu_enable_async_all_to_all=true                           # Ulysses' exchange of heads and tokens: else one all-to-all that all wait for
  --xla_tpu_enable_data_parallel_all_reduce_opt=true               # overlap gradient sums of replicas with the backward pass
  --xla_tpu_data_parallel_opt_different_sized_ops=true             # also where the gradients differ in size
)
export LIBTPU_INIT_ARGS="${tpu_flags[*]} ${LIBTPU_INIT_ARGS:-}"    # yours come last and win
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/osjax-xla}"  # a restart does not compile again
