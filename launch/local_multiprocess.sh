#!/usr/bin/env bash
# Train with several processes on this machine, as on several hosts: to try a multi-host config without any.
#   PROCESSES=2 launch/local_multiprocess.sh CONFIG WORKDIR [FLAGS of train ...]
# Variables: PROCESSES (2), PORT (8476) of the coordinator. On a CPU each process has one device, unless XLA_FLAGS says
# otherwise, and collectives go through gloo; on GPUs the processes share them out (CUDA_VISIBLE_DEVICES).
# Run by the tests, with two and four processes on CPUs; never with GPUs.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: PROCESSES=2 launch/local_multiprocess.sh CONFIG WORKDIR [FLAGS ...]" >&2
  exit 2
fi
config=$1 workdir=$2 processes=${PROCESSES:-2} coordinator="localhost:${PORT:-8476}"
shift 2
gpus=()
if [ "${JAX_PLATFORMS:-}" != cpu ] && command -v nvidia-smi >/dev/null; then
  mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader)
fi

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM  # train saves its state and exits with 75
for ((i = 0; i < processes; i++)); do
  share=$(IFS=,; echo "${gpus[*]:$((i * ${#gpus[@]} / processes)):$((${#gpus[@]} / processes))}")
  CUDA_VISIBLE_DEVICES="${share:-${CUDA_VISIBLE_DEVICES:-}}" \
    osjax train --config="$config" --workdir="$workdir" --coordinator="$coordinator" --processes="$processes" --process="$i" "$@" &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do
  wait "$pid" || { code=$?; [ "$status" -ne 0 ] || status=$code; }
done
exit "$status"
