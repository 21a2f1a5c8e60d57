#!/usr/bin/env bash
# Several processes on this machine, on CPU: the way to try multi-host code without a cluster.
#   PROCESSES=2 launch/local_multiprocess.sh [--config.KEY=VALUE ...]
set -euo pipefail
cd "$(dirname "$0")/.."

count="${PROCESSES:-2}"
export JAX_PLATFORMS=cpu                                                         # each process its own CPU devices
export XLA_FLAGS="--xla_force_host_platform_device_count=${DEVICES:-2} ${XLA_FLAGS:-}"  # virtual devices per process
export JAX_COORDINATOR_ADDRESS="localhost:${PORT:-12355}"                        # where the processes meet
export JAX_NUM_PROCESSES="$count"

processes=()
trap 'kill "${processes[@]}" 2>/dev/null || true' EXIT  # one failure must not leave the others waiting
for ((index = 0; index < count; index++)); do
  JAX_PROCESS_ID="$index" osjax demo "$@" &
  processes+=("$!")
done
for _ in "${processes[@]}"; do wait -n; done
