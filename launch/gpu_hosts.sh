#!/usr/bin/env bash
# Train on GPU hosts that are reached by plain ssh, one process a host. Every host has the repository in OSJAX_HOME
# (~/osjax) and sees the same config, workdir and data. The first host coordinates.
#   launch/gpu_hosts.sh "HOST0 HOST1 ..." CONFIG WORKDIR [FLAGS of train ...]
# Variables: OSJAX_HOME, PORT (8476) of the coordinator, SSH (ssh). OSJAX_VENV, the virtual environment on the hosts (none:
# their own python3). INSTALL=1: first make that environment on every host, where it is not there, and install the
# repository into it with the extras cuda and s3.
# Run with a stand-in for ssh that starts bash; never on GPUs.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo 'usage: launch/gpu_hosts.sh "HOST0 HOST1 ..." CONFIG WORKDIR [FLAGS ...]' >&2
  exit 2
fi
read -r -a hosts <<<"$1"
config=$(printf %q "$2") workdir=$(printf %q "$3")
shift 3
flags=""
for flag in "$@"; do flags+=" $(printf %q "$flag")"; done
coordinator="${hosts[0]##*@}:${PORT:-8476}"
home=${OSJAX_HOME:-'~/osjax'}
venv=${OSJAX_VENV:-} enter=""  # of the hosts: their shells read it, a ~ too
if [ -n "$venv" ]; then
  enter="source $venv/bin/activate && "
  if [ -n "${INSTALL:-}" ]; then
    enter="{ [ -d $venv ] || python3 -m venv $venv; } && ${enter}pip install -q -e '.[cuda,s3]' && "
  fi
fi

pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM  # ssh -tt: the far end is hung up with it
for i in "${!hosts[@]}"; do
  ${SSH:-ssh} -tt "${hosts[$i]}" "cd $home && ${enter}source launch/env_gpu.sh && \
exec python3 launch/supervise.py -- osjax train --config=$config --workdir=$workdir --coordinator=$coordinator --processes=${#hosts[@]} --process=$i$flags" </dev/null &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
