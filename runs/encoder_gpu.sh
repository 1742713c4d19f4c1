#!/bin/sh
# The built-in encoder on a GPU machine without network, in calls of nine minutes: installs what is missing from
# wheels, tokenises there (the raw text is small, its shards are not), trains by the clock, and leaves in BACK what should come back:
# the compact folder as one archive, the logs, the held-out scores, each below 16 MB. On a machine that is still there,
# the same call goes on where it was stopped.
#   pip download --no-deps --dest wheels tyro rjieba docstring-parser shtab typeguard      # before, where there is network
#   MINUTES=1.5 runs/encoder_gpu.sh DATA wheels BACK                                       # six runs of so many minutes
# Environment: PYTHON (the machine's own), OUT, LAYERS, SIZE, as in runs/encoder.sh; LIMIT: seconds until all is stopped;
# MORE: settings of the first two runs.
set -eu
cd "$(dirname "$0")/.."
data=$1 wheels=$2 back=$3
python=${PYTHON:-python3}
out=${OUT:-out/encoder-gpu}
mkdir -p "$out" "$back"

"$python" -c 'import tyro, rjieba' 2>/dev/null || "$python" -m pip install -q --no-index --no-deps --find-links "$wheels" \
    tyro rjieba docstring-parser shtab typeguard
PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH

minutes=${MINUTES:-1.5}
code=0
PYTHON=$python OUT=$out MINUTES=$minutes MINUTES_ASKED=$minutes MINUTES_AGAIN=$minutes \
    MINUTES_TEXT=$minutes MINUTES_CALM=$minutes MORE="--device cuda --step-tokens 65536 ${MORE:-}" \
    timeout --signal TERM --kill-after 20 "${LIMIT:-540}" runs/encoder.sh "$data" >"$back/encoder.log" 2>&1 || code=$?
for run in run more asked again text calm; do
    [ ! -f "$out/$run/log.jsonl" ] || cp "$out/$run/log.jsonl" "$back/$run.jsonl"
done
[ ! -d "$out/builtin" ] || tar -C "$out" -czf "$back/builtin.tar.gz" builtin
tail -n 20 "$back/encoder.log"
exit $code
