"""One fine-tuning for `finetune.py`, in a process of its own; prints seconds, steps and the test score as JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _trainer_tasks import RECIPES, logits_of


def bothways(job: dict[str, Any], precision: str) -> dict[str, Any]:
    """Bothways with its defaults, but for what both sides agree on; attention dropout is 0.0, its default."""
    from bothways.train import loop
    from bothways.train.folder import RunFolder
    from bothways.train.log import read_log

    # Watched from outside, before the verb imports it. The loop saves a checkpoint after each epoch, which the
    # Trainer is told not to do: that is timed apart, and counts in the seconds of the whole process only.
    training, loop.train = _timed(loop.train)
    saving, RunFolder.checkpoint = _timed(RunFolder.checkpoint)
    from bothways import finetune, load

    own = {"tag": {"tag": {"decode": "greedy"}}, "qa": {"qa": {"style": "squad2"}}}  # as the peer does it
    run = finetune(
        job["task"],
        model=job["model"],
        train=job["train"],
        out=Path(job["out"]) / "run",
        epochs=job["epochs"],
        batch=job["batch"],
        precision=precision,
        seed=job["seed"],
        device="cpu",
        quiet=True,
        optim={"lr": job["lr"], "warmup": job["warmup"], "weight_decay": job["weight_decay"], "clip": job["clip"]},
        batching={"max_length": job["max_length"]},
        **own.get(job["task"], {}),
    )
    if not (training and saving):
        sys.exit("the loop was not watched: bothways.train imports it in another way than this worker knows")
    scores = load(run.model, device="cpu").evaluate(job["test"])
    return {
        "train_seconds": sum(training) - sum(saving),
        "checkpoint_seconds": sum(saving),
        "steps": max(entry.get("step", 0) for entry in read_log(run.folder / "log.jsonl")),
        "score": scores[job["metric"]],
        "precision": _fastest() if precision == "auto" else precision,
    }


def _timed(function: Callable[..., Any]) -> tuple[list[float], Callable[..., Any]]:
    """The function, and the seconds that each call of it will have taken."""
    seconds: list[float] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - begun)

    return seconds, call


def _fastest() -> str:
    """The precision that Bothways' auto picks; the best Trainer gets the same."""
    from bothways.infer.devices import pick_precision

    return pick_precision("auto", torch.device("cpu"))


def trainer(job: dict[str, Any], *, best: bool) -> dict[str, Any]:
    """transformers' Trainer: as its defaults are, or with everything that makes it faster on a CPU.

    The best one sorts by length, uses bfloat16 where it is native, collates in a worker, and goes without
    attention dropout, as Bothways does: with it, PyTorch's fused attention is not used on a CPU.
    """
    import transformers
    from transformers import AutoTokenizer, Trainer, TrainingArguments, set_seed

    recipe = RECIPES[job["task"]]
    set_seed(job["seed"])
    lines = {split: Path(job[split]).read_text(encoding="utf-8").split("\n") for split in ("train", "test")}
    records = {split: [json.loads(line) for line in lines[split] if line] for split in lines}
    labels = recipe.labels(records["train"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    encoded = {split: recipe.encode(tokenizer, records[split], labels, job["max_length"]) for split in records}
    shape: dict[str, Any] = {"attention_probs_dropout_prob": 0.0} if best else {}
    shape |= {"num_labels": len(labels)} if labels else {}
    model = getattr(transformers, recipe.model).from_pretrained(job["model"], **shape)
    faster: dict[str, Any] = {}
    if best:
        faster = {"bf16": _fastest() == "bfloat16", "optim": "adamw_torch_fused"}
        faster |= {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
        named = "train_sampling_strategy" in TrainingArguments.__dataclass_fields__
        faster |= {"train_sampling_strategy": "group_by_length"} if named else {"group_by_length": True}
    args = TrainingArguments(
        output_dir=job["out"],
        use_cpu=True,
        seed=job["seed"],
        num_train_epochs=job["epochs"],
        per_device_train_batch_size=job["batch"],
        learning_rate=job["lr"],
        lr_scheduler_type="linear",
        warmup_steps=job["warmup"],  # below 1: a share of the steps
        weight_decay=job["weight_decay"],
        max_grad_norm=job["clip"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **faster,
    )
    collator = getattr(transformers, recipe.collator)(tokenizer)
    coach = Trainer(model=model, args=args, train_dataset=encoded["train"].inputs, data_collator=collator)
    begun = time.perf_counter()
    coach.train()
    seconds = time.perf_counter() - begun
    coach.save_model(str(Path(job["out"]) / "model"))
    return {
        "train_seconds": seconds,
        "checkpoint_seconds": 0.0,
        "steps": coach.state.global_step,
        "score": recipe.score(
            logits_of(model, collator, encoded["test"].inputs), encoded["test"], records["test"], labels
        ),
        "precision": "bfloat16" if faster.get("bf16") else "float32",
        "transformers": transformers.__version__,
    }


def main() -> None:
    """Run the job that the first argument describes."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    variant = job["variant"]
    if variant.startswith("bothways"):
        row = bothways(job, "float32" if variant == "bothways-float32" else "auto")
    else:
        row = trainer(job, best=variant == "trainer-best")
    row |= {"torch": torch.__version__, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}))


if __name__ == "__main__":
    main()
