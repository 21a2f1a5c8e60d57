#!/usr/bin/env bash
# Run one process per GPU host over ssh, for machines without a scheduler.
#   HOSTS="node1 node2" launch/gpu_hosts.sh [--config.KEY=VALUE ...]
# The clone must lie in FOLDER (default ~/osjax) on each host, installed with: pip install -e '.[cuda]'
set -euo pipefail

read -r -a hosts <<<"${HOSTS:?set HOSTS to the names of the machines, the coordinator first}"
folder="${FOLDER:-~/osjax}"
port="${PORT:-12355}"  # any free port on the first host
options=""
[ "$#" -eq 0 ] || options="$(printf ' %q' "$@")"  # quoted once more: they pass through the remote shell

processes=()
trap 'kill "${processes[@]}" 2>/dev/null || true' EXIT  # one host's failure must not leave the others waiting
for index in "${!hosts[@]}"; do
  # -tt ties the remote process to this ssh, so that it ends when the ssh is ended; -n leaves the terminal alone.
  ssh -n -tt "${hosts[$index]}" "cd $folder && source launch/env_gpu.sh && \
    JAX_COORDINATOR_ADDRESS=${hosts[0]}:$port JAX_NUM_PROCESSES=${#hosts[@]} JAX_PROCESS_ID=$index osjax demo$options" &
  processes+=("$!")
done
for _ in "${processes[@]}"; do wait -n; done
