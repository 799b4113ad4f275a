#!/usr/bin/env bash
# The long fault campaign: every test that kills, freezes, fills disks, sets clocks, lets processes meet in the state file or
# plays random operations beside a model, up to 100 rounds each (slow ones a share of that), from one printed seed. It ends with
# a table for benchmarks/RESULTS.md.
#   tests/campaign.sh [stage]     stage: a word for pytest -k (for instance: agent, frozen, full, strangers); default: everything
#   SCITQ_ROUNDS, SCITQ_SEED      how many rounds; the seed of an earlier run to repeat it
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${SCITQ_VENV:-$PWD/.venv-test}
[ ! -x "$venv/bin/pytest" ] || export PATH="$venv/bin:$PATH"

export SCITQ_ROUNDS=${SCITQ_ROUNDS:-100}
export SCITQ_SEED=${SCITQ_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
echo "campaign: ${1:-everything}, $SCITQ_ROUNDS rounds, SCITQ_SEED=$SCITQ_SEED"
exec pytest -n "$(($(getconf _NPROCESSORS_ONLN) + 1))" --dist worksteal --timeout 0 tests/crash tests/*/test_model.py tests/store/test_kill.py tests/fetch/test_large.py \
    tests/remote/test_containers.py tests/engine/test_caching_kills.py tests/recruiting/test_days.py tests/hosts -m "" ${1:+-k "$1"}
