#!/usr/bin/env bash
# What a GPU that is lent for a quarter of an hour is asked: memory against the compiler's count, MFU at 350M and 1.3B
# parameters beside a compiled Hugging Face Llama, packs of small runs, generation. One JSON at the end.
#
#     pip install -e '.[cuda]'
#     experiments/on_gpu.sh outcome.json [PYTHON]     # PYTHON: one that has torch and transformers, for the peers
#
# Every step has a time limit, all of them together less than ten minutes, and a step that fails leaves the others.
# Goals: 55 % of 989 TFLOP/s, dense bfloat16, and 1.1 times the peer. Not run yet: no GPU was at hand.
set -uo pipefail
outcome=${1:?give the JSON file to write} peer=${2:-} python=${LMSCALE_PYTHON:-python}
case ${3:-} in
  "") sizes=("350m 1024 24 16 2048 32768 16" "1.3b 2048 24 16 2048 32768 8") dtype=bfloat16 gpu=true packs="4 16 64" ;;
  trial) sizes=("tiny 32 2 2 64 256 4") dtype=float32 gpu=false packs="2" ;; # whether the script works, on a CPU
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

step() { # NAME SECONDS COMMAND...: what it printed, and how it ended, in files of that name
  local name=$1 seconds=$2 status=0
  shift 2
  echo "$name: at most $seconds s" >&2
  timeout "$seconds" "$@" >"$folder/$name.out" 2>"$folder/$name.err" || status=$?
  echo "$status" >"$folder/$name.status"
}

step doctor 40 "$python" -m lmscale doctor --json "$folder/doctor.json" --wait-seconds 30
for size in "${sizes[@]}"; do
  read -r name width layers heads context vocab batch <<<"$size"
  shape=(--width "$width" --layers "$layers" --heads "$heads" --context "$context" --vocab "$vocab" --batch "$batch")
  step "bench-$name" 80 "$python" -m lmscale bench "${shape[@]}" --compute-dtype "$dtype" --steps 20 \
    --json "$folder/bench-$name.json"
  "$python" - "$folder/$name.config.json" "$dtype" "$width" "$layers" "$heads" "$context" "$vocab" "$batch" <<'PY'
import json, sys
from lmscale import ModelConfig, OptimizerConfig, RunConfig
path, dtype, *numbers = sys.argv[1:]
width, layers, heads, context, vocab, batch = map(int, numbers)
model = ModelConfig(width=width, layers=layers, heads=heads, context=context, vocab=vocab, compute_dtype=dtype)
run = RunConfig(model=model, optimizer=OptimizerConfig(peak_lr=1e-3, batch_sequences=batch), tokens=batch * context)
open(path, "w").write(json.dumps(run.to_json()))
PY
  step "compiled-$name" 60 "$python" -m lmscale plan "$folder/$name.config.json" --compile "${LMSCALE_TARGET:-h200}" \
    --json "$folder/compiled-$name.json"
  if [[ -n $peer ]]; then
    step "peer-$name" 80 "$peer" "$here/bench_train_step.py" --measure \
      "[\"llama compile\", [$width, $layers, $heads, $context, $vocab, $batch, 1, 1], 20, $gpu]"
  fi
done
# shellcheck disable=SC2086  # several numbers
step pack 60 "$python" "$here/bench_pack.py" --runs $packs --dtype "$dtype" --steps 20
step generate 50 "$python" "$here/bench_generate.py" --python "${peer:-$python}" --rounds 1

"$python" - "$folder" "$outcome" <<'PY'
import json, sys
from pathlib import Path

folder, steps = Path(sys.argv[1]), {}
for status in sorted(folder.glob("*.status")):
    name, written = status.stem, folder / f"{status.stem}.json"
    steps[name] = {
        "status": int(status.read_text()),
        "printed": (folder / f"{name}.out").read_text(errors="replace")[-4000:],
        "errors": (folder / f"{name}.err").read_text(errors="replace")[-2000:],
        "json": json.loads(written.read_text()) if written.is_file() else None,
    }
Path(sys.argv[2]).write_text(json.dumps(steps, indent=1))
print(*(f"{name}: {'done' if one['status'] == 0 else 'status ' + str(one['status'])}" for name, one in steps.items()), sep="\n")
PY
