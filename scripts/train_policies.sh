#!/bin/sh
# Train a policy for every task, one after the other. Options are handed on to each, after
# those given here, so that the last word is yours:
#
#   sh scripts/train_policies.sh                                 # one GPU
#   sh scripts/train_policies.sh --agent.max-iterations 2000     # a first look
#   RESUME=1 sh scripts/train_policies.sh                        # go on where they stopped
#
# Ctrl-C saves the task in training and ends. With RESUME=1 each task that has a checkpoint
# under logs/ goes on from its newest run, and the others begin.
set -eu
cd "$(dirname "$0")/.."
tasks=$(uv run python -m smp.tasks)
# Not through a pipe: the loop shall end the script where a training fails.
while read -r task experiment <&3; do
  resume=""
  if [ -n "${RESUME:-}" ] && ls "logs/rsl_rl/$experiment"/*/model_*.pt >/dev/null 2>&1; then
    resume="--agent.resume True"
  fi
  echo "== $task $resume"
  # shellcheck disable=SC2086  # Two words, or none.
  uv run scripts/train.py "$task" --agent.save-interval 100 $resume "$@"
done 3<<TASKS
$tasks
TASKS
