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
for name in forward getup location steering; do
  task="Smp-$(printf %s "$name" | cut -c1 | tr a-z A-Z)$(printf %s "$name" | cut -c2-)-G1"
  resume=""
  if [ -n "${RESUME:-}" ] && ls "logs/rsl_rl/smp_${name}_g1"/*/model_*.pt >/dev/null 2>&1; then
    resume="--agent.resume True"
  fi
  echo "== $task $resume"
  # shellcheck disable=SC2086  # Two words, or none.
  uv run scripts/train.py "$task" --agent.save-interval 100 $resume "$@"
done
