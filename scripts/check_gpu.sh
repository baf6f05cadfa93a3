#!/bin/sh
# See that all works on a GPU, and how fast: the tests for a GPU, the benchmark, training
# with either learner for the same time, and an evaluation of what each has learned.
# Everything is written to one folder, with a summary.txt to send on.
#
#   sh scripts/check_gpu.sh               # 4 minutes of training with each learner
#   sh scripts/check_gpu.sh 20            # 20 minutes
#   OUT=folder sh scripts/check_gpu.sh    # default: outputs/check_gpu_DATE
#   SMALL=1 sh scripts/check_gpu.sh       # a rehearsal of seconds, on a CPU too
#
# A step that fails is said, and the next one begins. The status is 0 if none failed, 1 if
# one did, 2 if nothing could begin.
set -u
cd "$(dirname "$0")/.."

task=Smp-Forward-G1
minutes=${1:-4}
case $minutes in
*[!0-9.]* | *.*.*) bad=1 ;;
*[1-9]*) bad= ;;
*) bad=1 ;;
esac
if [ -n "$bad" ] || [ $# -gt 1 ]; then
  echo "check_gpu.sh $*: give the minutes of each training, a number above 0" >&2
  exit 2
fi

# Options of the steps: words without spaces, so they are split on purpose.
test_options="tests/test_on_a_gpu.py tests/mdp/test_smp_reward.py"
benchmark_options="--envs 4096"
env_options="--env.scene.num-envs 4096"
td3_options=""
evaluate_options=""
if [ -n "${SMALL:-}" ]; then
  minutes=0.05
  test_options="-m gpu tests/mdp/test_smp_reward.py"
  benchmark_options="--envs 4 --learner-envs 4 --seconds 0.05"
  env_options="--env.scene.num-envs 4 --env.commands.smp.gsi-buffer-size 16"
  td3_options="--agent.replay-steps 100 --agent.algorithm.batch-size 32"
  evaluate_options="--num-envs 20 --seconds 1"
elif ! uv run python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "check_gpu.sh: torch finds no CUDA GPU; SMALL=1 rehearses without one" >&2
  exit 2
fi

out=${OUT:-outputs/check_gpu_$(date +%Y-%m-%d_%H-%M-%S)}
mkdir -p "$out" || exit 2
summary=$out/summary.txt
: >"$summary" || exit 2
failed=0

say() { printf '%s\n' "$*" | tee -a "$summary"; }

# step NAME LINES PATTERN COMMAND...: run it, its output to NAME.txt; the last LINES of
# that which have PATTERN go to the summary.
step() {
  name=$1 lines=$2 pattern=$3
  shift 3
  say "" "== $name: $*"
  begin=$(date +%s)
  "$@" >"$out/$name.txt" 2>&1
  status=$?
  took=$(($(date +%s) - begin))
  grep -E "$pattern" "$out/$name.txt" | tail -n "$lines" | tee -a "$summary"
  if [ "$status" -eq 0 ]; then
    say "ok: $name, $took s"
  else
    failed=$((failed + 1))
    tail -n 5 "$out/$name.txt" | tee -a "$summary"
    say "FAILED: $name, status $status, $took s; all of it is in $out/$name.txt"
  fi
}

# evaluate LEARNER: the newest checkpoint that its training left.
evaluate() {
  # shellcheck disable=SC2012  # Names that train.py gives.
  checkpoint=$(ls -t "$out/$1"/*/*/model_*.pt 2>/dev/null | head -n 1)
  if [ -z "$checkpoint" ]; then
    failed=$((failed + 1))
    say "" "FAILED: evaluation_$1, its training left no checkpoint"
    return
  fi
  # shellcheck disable=SC2086
  step "evaluation_$1" 60 '│|┃|protocol' uv run scripts/evaluate.py $task \
    --checkpoint-file "$checkpoint" --output-dir "$out/evaluation_$1" --no-frames \
    $evaluate_options
}

say "$(date), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $out"
step machine 9 . uv run python -c 'import os, platform, torch
print(platform.platform(), "Python", platform.python_version(), "torch", torch.__version__)
for i in range(torch.cuda.device_count()):
  card = torch.cuda.get_device_properties(i)
  print(card.name, f"{card.total_memory / 2**30:.0f} GiB, CUDA", torch.version.cuda)
print(os.cpu_count(), "cores")'
# shellcheck disable=SC2086
step tests 1 'passed|failed|skipped|error' uv run pytest -n 0 $test_options
# shellcheck disable=SC2086
step benchmark 60 '│|┃|milliseconds|INFO' uv run scripts/benchmark.py \
  $benchmark_options --json "$out/benchmark.json"
for learner in td3 ppo; do
  options=""
  [ $learner = td3 ] && options=$td3_options
  # shellcheck disable=SC2086
  step "train_$learner" 6 \
    'steps/s|Total steps|Steps per second|Mean reward|Mean episode length|r_smp' \
    uv run scripts/train.py $task --learner $learner --minutes "$minutes" \
    --agent.logger tensorboard --log-root "$out/$learner" $env_options $options
done
for learner in td3 ppo; do
  evaluate $learner
done
say "" "$failed steps failed; $summary"
[ "$failed" -eq 0 ]
