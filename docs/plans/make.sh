#!/usr/bin/env bash
# The plans in docs/plans, made anew: the curriculum on every target of configs/hardware.
#   docs/plans/make.sh [TARGET ...]
# With osjax[plan] train steps are compiled for the TPUs, with osjax[plan-gpu] for the GPUs: minutes a stage on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
for pair in v5p_128=v5p-128 v5p_256=v5p-256 v6e_256=v6e-256 h200_64=h200x64 h200_192=h200x192; do
  config=${pair%%=*} target=${pair##*=}
  if [ $# -gt 0 ] && [[ " $* " != *" $target "* ]]; then continue; fi
  JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} osjax plan --config="configs/hardware/$config.py" --target="$target" \
    --markdown="docs/plans/$target.md"
done
