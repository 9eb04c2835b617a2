"""Folders as runs that slim a Transformer leave them, made without training."""

import json
from pathlib import Path
from typing import Any

PARTS = {"vision attention": ("self_attn", 64), "vision feed-forward": ("mlp", 256)}
DENSE = {"parameters": 2_000_000, "macs": 500_000_000}


def finish_slim_run(
    folder: Path,
    value: float,
    *,
    task: str = "classify",
    metric: str = "accuracy",
    method: str = "none",
    ratio: float = 0.5,
    search: int = 0,
    training: int = 10,
    seed: int = 1,
    initial: str = "",
    latency: float | None = None,
    **changed: Any,
) -> Path:
    """One folder; a slim model keeps 1 - ratio of each module, of all parameters and multiply-adds."""
    left = 1.0 if method == "none" else 1 - ratio
    recipe = {
        "task": task,
        "model": {"initial": initial},
        "data": {"name": "flowers", "root": "flowers"},
        "slim": {"method": method, "ratio": ratio, "budget": "parameters"},
        "search": {"epochs": search},
        "training": {"epochs": training, "seed": seed},
    }
    widths = {
        f"vision_model.encoder.layers.{layer}.{name}": {"part": part, "size": size, "width": int(size * left)}
        for layer in range(3)
        for part, (name, size) in PARTS.items()
    }
    result = {
        "task": task,
        "selection": metric,
        "scores": {metric: value, "other": 2 * value},
        "baselines": {"chance": 1.0, "no image": 5.9},
        **{key: {"dense": count, "now": int(count * left)} for key, count in DENSE.items()},
        "widths": {} if method == "none" else widths,
        **changed,
    }
    (folder / "model").mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "result.json").write_text(json.dumps(result))
    if latency is not None:
        (folder / "latency.json").write_text(json.dumps({"ratio": latency}))
    return folder


def finish_slim_study(root: Path) -> Path:
    """A dense beginning, its control, and three slim runs of as many epochs altogether."""
    finish_slim_run(root / "dense0", 70.0)
    begun = {"initial": "runs/flowers/dense0/model"}
    finish_slim_run(root / "control", 75.0, training=10, **begun)
    finish_slim_run(root / "upop", 74.0, method="upop", search=4, training=6, latency=1.6, **begun)
    finish_slim_run(root / "mask", 69.0, method="mask", search=4, training=6, latency=1.5, **begun)
    finish_slim_run(root / "upop_2", 73.0, method="upop", search=4, training=6, latency=1.6, seed=2, **begun)
    return root
