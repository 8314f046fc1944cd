"""A model trained from JPEG shards by bdbench, or by open_clip's own trainer; as a process, either.

Both begin in a process of their own with nothing but the shards and end with the weights on disk.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from bdbench.schema import ModelFile, Training
from tests.benchmarks.bare import Clock


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Decode the shards once, choose and train: the stages of `bdbench run` up to the model."""
    from bdbench.execute import execute
    from bdbench.plan import Plan, cells, plan
    from bdbench.registry import Registry
    from bdbench.store import Store

    registry, store = Registry(), Store(Path(job["folder"]))
    wanted = cells(registry, recipe="coco_mini", attacks=["badnet"], objectives=["mmcl"],
                   defenses=["none"], seeds=[0])
    whole = plan(registry, wanted, job["overrides"])
    nodes = {k: n for k, n in whole.nodes.items() if n.stage in ("data", "poison", "pretrain")}
    execute(Plan(nodes, whole.stages), store)
    made = {node.stage: store.open(node.stage, key) for key, node in nodes.items()}
    lines = made["pretrain"].file("train.jsonl").read_text().splitlines()
    return {
        "decoding": sum(store.open(node.stage, key).manifest.seconds
                        for key, node in nodes.items() if node.stage == "data"),
        "training": made["pretrain"].manifest.seconds,
        "samples": made["pretrain"].manifest.samples,
        "loss": json.loads(lines[-1])["clip"],
        "model": str(made["pretrain"].path),
    }


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """`open_clip_train.main` with the model and the tokenizer of `job["model"]`."""
    import torch

    from bdbench.clip import _open_clip
    from bdbench.words import WordTokenizer

    _open_clip()
    from open_clip_train import main as trainer

    torch.set_num_threads(job["threads"])
    file = ModelFile.model_validate_json((Path(job["model"]) / "model.json").read_bytes())
    training = Training(**job["training"])
    clock, epoch, samples = Clock(torch.device(job["device"])), trainer.train_one_epoch, []

    def begin(model: Any, data: Any, *given: Any, **named: Any) -> None:
        clock.step()
        epoch(model, data, *given, **named)
        clock.end()
        samples.append(data["train"].dataloader.num_samples)

    trainer.train_one_epoch = begin
    trainer.get_tokenizer = lambda *_, **__: WordTokenizer(file.words, 4000, 24)
    options = {
        "model": file.model.name, "train-data": job["shards"], "dataset-type": "webdataset",
        "train-num-samples": job["samples"], "epochs": training.epochs,
        "batch-size": training.batch, "lr": training.lr, "warmup": training.warmup_steps,
        "wd": training.weight_decay, "beta1": training.beta1, "beta2": training.beta2,
        "eps": training.eps, "precision": "fp32", "device": job["device"],
        "workers": job["workers"], "logs": job["folder"], "name": "run", "save-frequency": 0,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    trainer.main(words)
    log = (Path(job["folder"]) / "run" / "out.log").read_text()
    return {
        "training": clock.whole, "samples": sum(samples),
        "loss": float(re.findall(r"Loss: [\d.]+ \(([\d.]+)\)", log)[-1]),
        "model": str(Path(job["folder"]) / "run" / "checkpoints" / f"epoch_{training.epochs}.pt"),
    }


if __name__ == "__main__":
    print(json.dumps({"ours": ours, "theirs": theirs}[sys.argv[1]](json.loads(sys.argv[2]))))
