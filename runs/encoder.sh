#!/bin/sh
# The built-in encoder, from raw text: vocabulary, shards, pre-training, held-out scores by language, a compact folder.
# Run it again to go on. DATA: an absolute path. Environment: PYTHON, OUT, SIZE, STEPS, and MORE for any further settings,
# as in: SIZE=6x256 STEPS=20000 MORE='--step-tokens 65536 --device cuda' runs/encoder.sh DATA
set -eu
cd "$(dirname "$0")/.."
data=${1:-$PWD/../shared/data}
python=${PYTHON:-.venv/bin/python}
out=${OUT:-out/encoder}

text=$(ls "$data"/zh/rawtext/*/train-*.txt.xz "$data"/en/rawtext/*/train-*.txt.xz)
dev="$data/zh/rawtext/wikipedia_zh/dev.txt.xz $data/en/rawtext/wikipedia_2015/dev.txt.xz"

# All text of both languages: 60 million tokens, of which 62 % are Chinese. English has fewer, for it begins from
# MiniLM where that is better; 19th-century novels stay in, since Wikipedia has next to no feelings in it.
[ -f "$out/vocab/vocab.txt" ] || "$python" -m bothways vocab --text $text --size 16000 --out "$out/vocab"

resume=""
[ -f "$out/run/config.toml" ] && resume="--resume"
"$python" -m bothways pretrain --text $text --dev $dev --vocab "$out/vocab" --shards "$out/shards" --out "$out/run" \
    --model "${SIZE:-mini}" --steps "${STEPS:-1700}" --step-tokens 6144 --evaluate-every 200 \
    --embeddings cooccurrence --corpus.mask-rate 0.2 \
    --optim.method muon --optim.lr 2e-3 --optim.warmup 0.02 --optim.schedule stable --optim.decay 0.3 --optim.dropout 0 \
    ${MORE:-} $resume

"$python" -m runs.heldout "$out/run" --text "$data/zh/rawtext/wikipedia_zh/dev.txt.xz" "$data/en/rawtext/wikipedia_2015/dev.txt.xz"
[ -d "$out/builtin" ] || "$python" -m runs.without_pooler "$out/run" "$out/builtin"
