#!/usr/bin/env bash
# Train on a Cloud TPU pod: the same command on every host, through gcloud. Every host has the repository in ~/osjax,
# installed with its extra `tpu`; config and workdir are seen by all hosts (gs://bucket/run works as config.checkpoints).
#   launch/tpu_pod.sh NAME ZONE CONFIG WORKDIR [FLAGS of train ...]
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "usage: launch/tpu_pod.sh NAME ZONE CONFIG WORKDIR [FLAGS ...]" >&2
  exit 2
fi
name=$1 zone=$2 config=$(printf %q "$3") workdir=$(printf %q "$4")
shift 4
flags=""
for flag in "$@"; do flags+=" $(printf %q "$flag")"; done

gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="cd ~/osjax && source launch/env_tpu.sh && \
exec python3 launch/supervise.py -- osjax train --config=$config --workdir=$workdir --multihost$flags"
