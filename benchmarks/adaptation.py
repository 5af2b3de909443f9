"""What adaptation is worth on a microscope that a bundle was not trained on.

    python benchmarks/adaptation.py --bundle DIR --set DATASET --out DIR [--labelled 0 1 2 5 10]
        [--methods correction self-training statistics] [--steps 400] [--limit N] [--json FILE]

Divides a labelled set by patients (slides; fields where neither is known) into two halves. The
images of the first are the unlabelled target; of its fields K are given as marked. A correction
needs some; any other method is tried beside it. The original and every adapted bundle then analyse
the second half by the whole path, and are compared as `bloodfilm evaluate --cross` does it: gains
are relative to the original. What was returned is named, be it the original. The set must not have
been in the training of the bundle, which needs exemplars (`bloodfilm exemplars`) for marked fields.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from bloodfilm.core import Dataset
from bloodfilm.evaluation.cross_record import show_cross
from bloodfilm.evaluation.intervals import group_fields
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.workflows.adapt import AdaptJob, adapt
from bloodfilm.workflows.cross_evaluate import CrossOptions, MethodSpec, TestSet, cross_evaluate


def halves(data: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Divide a set into two by its groups."""
    groups, _ = group_fields(data.fields)
    names = np.random.default_rng(seed).permutation(sorted(set(groups)))
    first = set(names[: len(names) // 2].tolist())
    parts = [
        tuple(f for f, g in zip(data.fields, groups, strict=True) if (g in first) is wanted)
        for wanted in (True, False)
    ]
    return replace(data, fields=parts[0]), replace(data, fields=parts[1])


def main() -> None:
    """Adapt, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labelled", type=int, nargs="*", default=[0, 1, 2, 5, 10])
    parser.add_argument("--methods", nargs="*", default=["correction", "self-training"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="compare on so many fields at most")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    target, test = halves(open_dataset(given.set), given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    marked = given.out / "marked.json"
    save_dataset(target, marked, "bloodfilm", overwrite=True)
    jobs = [(m, k) for m in given.methods for k in given.labelled if k or m != "correction"]
    methods = [MethodSpec("original", given.bundle)]
    for method, k in jobs:
        name = f"{method}, {k} marked" if k else method
        out = given.out / name.replace(", ", "-").replace(" ", "-")
        if not (out / "manifest.json").exists():
            job = AdaptJob(
                bundle=given.bundle,
                target=[item.path for item in target],
                out=out,
                method=method,
                steps=given.steps,
                labelled=marked if k else None,
                labelled_fields=k or None,
                seed=given.seed,
            )
            done = adapt(job)
            print(f"{name}: {json.dumps(done.report['candidates'])}", flush=True)
        returned = json.loads((out / "adaptation.json").read_text("utf-8"))["method"]
        methods.append(MethodSpec(f"{name}: {returned}", out))
    options = CrossOptions(
        sets=[TestSet(test)], methods=methods, baseline="original", limit=given.limit
    )
    evaluation = cross_evaluate(options)
    Console(width=160).print(show_cross(evaluation))
    if given.json:
        given.json.write_text(json.dumps(evaluation.to_json(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
