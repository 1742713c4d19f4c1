#!/bin/sh
# Every figure of LOG.md's first entry, from the data in $1 (an absolute path; default ../shared/data). Run it again to go on.
set -eu
cd "$(dirname "$0")/.."
data=${1:-../shared/data}
python=${PYTHON:-.venv/bin/python}

"$python" benchmarks/finetune.py --shared "$data" --data sst2 sms_spam --seeds 3 --out runs/results/finetune.jsonl
"$python" -m runs.spine --shared "$data"
"$python" -m runs.table
