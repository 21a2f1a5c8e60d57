#!/usr/bin/env bash
# Train on a Cloud TPU pod: the same command on every host, through gcloud. Every host has the repository in ~/osjax; the
# config is in it. TPU VMs share no disk: give --config.checkpoints=gs://bucket/run and a data set on a bucket.
#   launch/tpu_pod.sh NAME ZONE CONFIG WORKDIR [FLAGS of train ...]
# Variables: OSJAX_VENV, the virtual environment on the hosts (none: their own python3). INSTALL=1: first make that
# environment on every host, where it is not there, and install the repository into it with the extras tpu and gcs.
# Run with a stand-in for gcloud that starts bash; never on a TPU.
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "usage: launch/tpu_pod.sh NAME ZONE CONFIG WORKDIR [FLAGS ...]" >&2
  exit 2
fi
name=$1 zone=$2 config=$(printf %q "$3") workdir=$(printf %q "$4")
shift 4
flags=""
for flag in "$@"; do flags+=" $(printf %q "$flag")"; done

venv=${OSJAX_VENV:-} enter=""  # of the hosts: their shells read it, a ~ too
if [ -n "$venv" ]; then
  enter="source $venv/bin/activate && "
  if [ -n "${INSTALL:-}" ]; then
    enter="{ [ -d $venv ] || python3 -m venv $venv; } && ${enter}pip install -q -e '.[tpu,gcs]' && "
  fi
fi

gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="cd ~/osjax && ${enter}source launch/env_tpu.sh && \
exec python3 launch/supervise.py -- osjax train --config=$config --workdir=$workdir --multihost$flags"
