"""Should attributes be read from the detector's early features, or from the found cell itself?

    python benchmarks/reading.py runs/classifier runs/classifier_roi [--json FILE]

Compares two finished runs of `bloodfilm train` that differ in `model.input` only: validation
figures of the best epoch, and the time one cell costs in ONNX Runtime on one thread. AttriDet's
way (`roi`) is timed as if the detector's features were free: the heads alone.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bloodfilm.export.onnx_graphs import ClassifierGraph, classifier_onnx, to_onnx
from bloodfilm.inference.bundle import open_session
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import parse_config
from bloodfilm.training.networks import build_classifier
from bloodfilm.training.records import ClassifierRecord, read_record

CELLS = 8
REPEATS = 20


class _Heads(nn.Module):
    """What is left to do for a cell once its features are there."""

    def __init__(self, classifier: CellClassifierNet) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, description: Tensor) -> tuple[Tensor, Tensor]:
        heads = [head(description) for head in self.classifier.attribute_heads]
        return self.classifier.class_head(description), torch.cat(heads, 1)


def _milliseconds(run: Callable[[], Any]) -> float:
    """Return the least time of a call, per cell."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1000 / CELLS


def examine(run: Path) -> dict[str, Any]:
    """Return a run's figures and costs."""
    record = read_record(run, ClassifierRecord)
    config = parse_config(record.config, str(run))
    kept = load_checkpoint(run / "best.pt")
    model = build_classifier(config, record.read_vocabulary())
    model.load_state_dict(kept["model"])
    model.eval()
    if config.model.input == "roi":
        heads = _Heads(model).eval()
        example = torch.zeros(CELLS, model.size)
        outputs = ("classes", "attributes")
        axes = {name: {0: "n"} for name in ("description", *outputs)}
        onnx = to_onnx(heads, example, "description", outputs, axes)
        feed = {"description": example.numpy()}
    else:
        example = torch.zeros(CELLS, record.size, record.size, 3, dtype=torch.uint8)
        onnx = classifier_onnx(ClassifierGraph(model), example)
        feed = {"crops": np.random.default_rng(0).integers(0, 255, example.shape, dtype=np.uint8)}
    session = open_session(onnx, run, "cpu", 1)
    return {
        "input": config.model.input,
        "epochs": config.optim.epochs,
        "seed": config.seed,
        "milliseconds_a_cell": round(_milliseconds(lambda: session.run(None, feed)), 2),
        "megabytes": round(len(onnx) / 1e6, 1),
        "validation": kept["metrics"],
    }


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [examine(run) for run in options.runs]
    print("| figure | " + " | ".join(r["input"] for r in rows) + " |")
    print("|---|" + "---|" * len(rows))
    for key in ("milliseconds_a_cell", "megabytes", "epochs", "seed"):
        print(f"| {key} | " + " | ".join(str(r[key]) for r in rows) + " |")
    for key in rows[0]["validation"]:
        values = " | ".join(f"{r['validation'][key]:.4f}" for r in rows)
        print(f"| {key} | {values} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
