#!/bin/sh
# The built-in encoder: vocabulary, shards, a start from MiniLM's first layers, pre-training in two runs, a layer more and
# questions made from the text in four others, held-out scores by language, a compact folder; its heads are made by
# runs/heads.sh. Run it again to go on. DATA: an absolute path. Environment: PYTHON, OUT, STEPS and STEPS_MORE (of the
# first two runs) or MINUTES (of each), MINUTES_ASKED, MINUTES_AGAIN, MINUTES_TEXT and MINUTES_CALM (of the others), LAYERS
# (which of MiniLM's), SIZE (a size instead: then from random weights, and without the others), and MORE for any further
# settings of the first two, as in:
# SIZE=6x256 STEPS=20000 MORE='--step-tokens 65536 --optim.lr 2e-3 --device cuda' runs/encoder.sh DATA
set -eu
cd "$(dirname "$0")/.."
data=${1:-$PWD/../shared/data}
python=${PYTHON:-.venv/bin/python}
out=${OUT:-out/encoder}

text=$(ls "$data"/zh/rawtext/*/train-*.txt.xz "$data"/en/rawtext/*/train-*.txt.xz)
dev="$data/zh/rawtext/wikipedia_zh/dev.txt.xz $data/en/rawtext/wikipedia_2015/dev.txt.xz"

# All text of both languages: 60 million tokens, of which 62 % are Chinese. English has fewer, for it begins from
# MiniLM; 19th-century novels stay in, since Wikipedia has next to no feelings in it.
[ -f "$out/vocab/vocab.txt" ] || "$python" -m bothways vocab --text $text --size 16000 --out "$out/vocab"

if [ -n "${SIZE:-}" ]; then
    begin="--model $SIZE --vocab $out/vocab --embeddings cooccurrence"
else
    # Pairs under CC BY; those of TED and of technical articles may not be given on.
    [ -d "$out/start" ] || "$python" -m runs.transplant "$out/start" --vocab "$out/vocab" --shards "$out/shards" \
        --text $text --pairs "$data/zh/translation/tatoeba_en_zh/train.jsonl.gz" --layers ${LAYERS:-0 1 2}
    begin="--model $out/start"
fi

train() { # a run's folder, and its settings
    resume=""
    [ -f "$1/config.toml" ] && resume="--resume"
    "$python" -m bothways pretrain --text $text --dev $dev --shards "$out/shards" --out "$@" \
        --corpus.second none --corpus.mask-rate 0.2 --optim.method muon --optim.schedule stable --optim.warmup 0.02 \
        --optim.dropout 0 ${MORE:-} $resume
}

length() { # so many steps, or by the clock
    [ -n "${MINUTES:-}" ] && echo "--minutes $MINUTES" || echo "--steps $1"
}

train "$out/run" $begin $(length "${STEPS:-1300}") --step-tokens 6144 --evaluate-every 200 --optim.lr 7e-4 --optim.decay 0.4
# Masks teach [CLS] nothing, and classification reads it: in the second run it is asked for pieces of its text.
train "$out/more" --model "$out/run" --seed 1 $(length "${STEPS_MORE:-1500}") --step-tokens 8192 --evaluate-every 250 \
    --optim.lr 5e-4 --optim.decay 0.7 --corpus.cls-words 6

questions() { # a folder, how many questions and characters of raw text, and the weight of the questions' loss
    [ -f "$1/tasks.toml" ] ||
        "$python" -m runs.cloze "$1" --shared "$data" --questions "$2" --characters "$3" --weight "${4:-1}"
}

ask() { # a run's folder, its questions' folder, and its settings
    folder=$1 asked=$2 resume="" && shift 2
    [ -f "$folder/config.toml" ] && resume="--resume"
    "$python" -m bothways finetune multi --config "$asked/tasks.toml" --train "$asked/train.jsonl" \
        --dev "$asked/dev.jsonl" --out "$folder" --optim.method muon --optim.warmup 0.02 --optim.schedule stable \
        --optim.dropout 0 "$@" $resume
}

last=$out/more
if [ -z "${SIZE:-}" ]; then
    # Three layers don't learn to search one text for what another says; four do, and soon. See LOG.md.
    [ -d "$out/deeper" ] || "$python" -m runs.deepen "$out/deeper" --model "$out/more"
    questions "$out/questions" 25000 6000000
    ask "$out/asked" "$out/questions" --model "$out/deeper" --minutes "${MINUTES_ASKED:-80}" --batch 48 \
        --optim.lr 7e-4 --optim.decay 0.5
    # A run more at that rate ended where it began, but the mean of both ends is better than either.
    questions "$out/fewer" 15000 12000000
    ask "$out/again" "$out/fewer" --model "$out/asked" --minutes "${MINUTES_AGAIN:-58}" --batch 48 --seed 1 \
        --optim.lr 7e-4 --optim.decay 0.6
    [ -d "$out/mean" ] || "$python" -m runs.mean "$out/mean" "$out/asked" "$out/again"
    # The fourth layer cost what the others knew of words: from here on most of a run is raw text, in larger steps.
    questions "$out/fewest" 5000 12000000
    ask "$out/text" "$out/fewest" --model "$out/mean" --minutes "${MINUTES_TEXT:-74}" --batch 96 --seed 2 \
        --optim.lr 4e-4 --optim.decay 0.9
    # All the while the gradient of a few questions, a mean of its own, was many times that of all masks.
    questions "$out/weighed" 5000 12000000 0.05
    last=$out/calm
    ask "$last" "$out/weighed" --model "$out/text" --minutes "${MINUTES_CALM:-66}" --batch 96 --seed 3 \
        --optim.lr 5e-4 --optim.decay 0.7
fi

"$python" -m runs.heldout "$last" --text "$data/zh/rawtext/wikipedia_zh/dev.txt.xz" "$data/en/rawtext/wikipedia_2015/dev.txt.xz"
[ -d "$out/builtin" ] || "$python" -m bothways convert "$last" "$out/builtin" --to compact
