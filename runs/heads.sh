#!/bin/sh
# The built-in model's heads: trains, scores and times them. START: the encoder's folder; none: builtin. Run it again to go on.
#   runs/heads.sh [START] --minutes 55   the open data, whose model ships; so many minutes of training, then the scores
#   runs/heads.sh [START] --research     sets for research only, to measure; --only words zh_entities: some of them
# Environment: PYTHON, DATA, OUT (with the folder that ships, in OUT/builtin), JIEBA (a Python that has jieba).
# To ship it: put OUT/builtin in the place of src/bothways/builtin.
set -eu
cd "$(dirname "$0")/.."
start=builtin
case "${1:--}" in
-*) ;;
*) start=$1 && shift ;;
esac
python=${PYTHON:-.venv/bin/python}
out=${OUT:-out/heads}

"$python" -m runs.heads --start "$start" --shared "${DATA:-$PWD/../shared/data}" --work "$out" \
    ${JIEBA:+--jieba "$JIEBA"} "$@"
