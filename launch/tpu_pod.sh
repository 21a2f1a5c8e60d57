#!/usr/bin/env bash
# Run the same command on every host of a Cloud TPU slice.
#   PROJECT=my-project launch/tpu_pod.sh TPU_NAME ZONE [--config.KEY=VALUE ...]
# The clone must lie in ~/osjax on each host, installed with: pip install -e '.[tpu]'
set -euo pipefail

tpu="${1:?give the name of the TPU slice}"
zone="${2:?give its zone, such as us-east5-b}"
shift 2
options=""
[ "$#" -eq 0 ] || options="$(printf ' %q' "$@")"  # quoted once more: they pass through the remote shell

gcloud_flags=(
  --project="${PROJECT:?set PROJECT to your Google Cloud project}"
  --zone="$zone"
  --worker=all  # jax needs one process on every host of the slice; they find each other through the TPU's metadata
)
gcloud compute tpus tpu-vm ssh "$tpu" "${gcloud_flags[@]}" \
  --command="cd ~/osjax && source launch/env_tpu.sh && osjax demo$options"
