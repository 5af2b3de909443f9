"""The golden cases: what the program gives for drawn inputs, through its command line.

Every case is a function of a `Workshop`, returning plain data; `CASES` names them all. A case of
hand-made graphs or of labels only is compared closely; one of trained networks or of long sums over
pixels within a tolerance, and what lies near a threshold is left out of its golden record.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from golden.compare import ANY, NUMBER, Tolerance
from golden.running import (
    OLD,
    disc_bundle,
    draw_discs,
    json_of,
    lines,
    page,
    plain,
    read_json,
    run,
    succeed,
    tree,
    write_training_set,
)

FORMATS = (
    "bloodfilm", "coco", "cvat", "folder", "index", "label_studio", "lld", "qupath", "voc", "yolo",
)  # fmt: skip
LOOKS = ("pbc-like", "bccd-like", "raabin-like", "lld40x-like", "lld40x-magenta", "lld100x-like")

BOXES = dict.fromkeys(("box", "bbox", "boxes", "other_boxes", "before", "after"), 0.5)
CLOSE = Tolerance(2e-3, 1e-3, {"box": 0.1})
OF_PIXELS = Tolerance(0.02, 0.01, BOXES)
OF_ALIGNMENT = Tolerance(
    0.02, 0.01, {"box": 1.5, "region": 3, "matrix": 2, "degrees": 0.2, "correlation": 0.05}
)
# The shipped networks count in eight-bit integers, which processors add up in unlike ways.
OF_NETWORKS = Tolerance(
    5e-3,
    5e-3,
    {
        "box": 3,
        "diameter_um": 0.25,
        "red cells": 2,
        "platelets": 4,
        "sure answers": 4,
        "sharpness": 0.5,
    },
)

CLEAR = 0.15
"""How far a probability is from a threshold at least, for what it decides to be compared."""


@dataclass(frozen=True)
class Case:
    """A golden case.

    Attributes:
        make: makes the record of today.
        tolerance: of its numbers.
        slow: whether it takes more than a few seconds.
    """

    make: Callable[["Workshop"], Any]
    tolerance: Tolerance = CLOSE
    slow: bool = False


class Workshop:
    """A folder where the inputs that cases share are drawn when they are first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def folder(self, name: str) -> Path:
        """Return an empty folder."""
        path = self.root / name
        path.mkdir(parents=True)
        return path

    @cached_property
    def discs(self) -> Path:
        """`fields` of discs, `damaged` with a file that is no image, `dataset.json`, `bundle`."""
        folder = self.folder("discs")
        draw_discs(folder / "fields")
        draw_discs(folder / "damaged")
        (folder / "damaged" / "d.png").write_bytes(b"not an image")
        shutil.copy(OLD / "v1" / "dataset.json", folder)
        disc_bundle(folder / "bundle")
        return folder

    @cached_property
    def films(self) -> Path:
        """`drawn`: a rendered field of each look, all cells labelled."""
        folder = self.folder("films")
        looks = [word for look in LOOKS for word in ("--look", look)]
        succeed(folder, "films", "drawn", "--fields", 1, "--small", "--seed", 5, *looks)
        return folder

    @cached_property
    def bed(self) -> Path:
        """`set`: a faulty set in LLD's layout, with every known fault."""
        folder = self.folder("bed")
        subsets = ("--lld", "H_40X_C2", "--lld", "H_100X_C2")
        plan = ("--fields", 3, "--patients", 6, "--side", 480, "--fault", "all", "--seed", 3)
        succeed(folder, "films", "set", *subsets, *plan)
        return folder

    @cached_property
    def runs(self) -> Path:
        """`detector`, `classifier` and `sparse`: one epoch each on small fields of discs."""
        folder = self.folder("training")
        write_training_set(folder / "discs")
        for name, text in CONFIGS.items():
            (folder / f"{name}.toml").write_text(text, encoding="utf-8")
            words = ("--data", ".", "--out", name, "--device", "cpu", "--threads", 1)
            succeed(folder, "train", f"{name}.toml", *words)
        return folder


# ---- analysis --------------------------------------------------------------------------------


def analyze_discs(work: Workshop) -> Any:
    """Results, table and report where every answer is known; one file is no image."""
    folder = work.discs
    words = ("analyze", "damaged", "--bundle", "bundle", "--threads", 1)
    printed = succeed(folder, *words, "--out", "all", "--json", code=1)
    result = json_of(folder / "all" / "result.json", folder)
    table = (folder / "all" / "cells.csv").read_text(encoding="utf-8")
    for field in result["fields"]:
        field["appearance"] = len(field["appearance"])  # signs may differ between processors
        field["cells"] = [
            c | {"id": _kind_of_id(c)} if _nucleated(c) else _small_cell(c) for c in field["cells"]
        ]
    return {
        "summary": plain(json.loads(printed), folder),
        "result.json": result,
        "cells.csv": [_CELL_ID.sub(",<id>", line) for line in lines(table)],
        "report.html": page(folder / "all" / "report.html"),
    }


def analyze_options(work: Workshop) -> Any:
    """What the options of an analysis change: which cells, whether scale is measured."""
    folder = work.discs
    words = ("analyze", "fields", "--bundle", "bundle", "--no-report", "--threads", 1)
    told = ("--um-per-px", 0.2, "--squeeze", 0.9, "--min-score", 0.97, "--all-cells")
    succeed(folder, *words, "--out", "told", *told)
    result = json_of(folder / "told" / "result.json", folder)
    table = (folder / "told" / "cells.csv").read_text(encoding="utf-8").splitlines()
    again = run(folder, *words, "--out", "told")
    return {
        "lines of cells.csv": len(table),
        "files": sorted(p.name for p in (folder / "told").iterdir()),
        "settings": result["settings"],
        "fields": [
            {"view": f["view"], "nucleated": [c["box"] for c in f["cells"] if _nucleated(c)]}
            for f in result["fields"]
        ],
        "a second run there": [again.code, lines(again.err)],
    }


def analyze_shipped(work: Workshop) -> Any:
    """The shipped bundle on rendered fields: nucleated cells, and how many others."""
    folder = work.films
    succeed(folder, "analyze", "drawn", "--out", "results", "--no-report", "--threads", 1)
    result = json_of(folder / "results" / "result.json", folder)
    return {
        "keys": list(result),
        "fields": [_shipped_field(f) for f in result["fields"]],
        "failures": result.get("failures"),
    }


def _nucleated(cell: dict[str, Any]) -> bool:
    return bool(cell["object_type"] == "nucleated cell")


_CELL_ID = re.compile(",[0-9a-f]{16}$")


def _kind_of_id(cell: dict[str, Any]) -> str:
    """Return what an id looks like; the id itself depends on the last bits of boxes and files."""
    return re.sub("[0-9a-f]{16}", "<id>", cell["id"])


def _small_cell(cell: dict[str, Any]) -> str:
    """Return a red cell or platelet in one line."""
    box = " ".join(f"{v:.1f}" for v in cell["box"])
    issues = ", ".join(i["code"] for i in cell["issues"])
    return f"{cell['object_type']}, {cell['class']}, {box}, {cell['score']:.3f}, {issues}"


def _shipped_field(field: dict[str, Any]) -> dict[str, Any]:
    cells = field["cells"]
    kinds = [c["object_type"] for c in cells]
    left_out = ("cells", "issues", "problems", "pixels", "appearance")  # of rendered pixels
    row = {k: v for k, v in field.items() if k not in left_out}
    row |= {"red cells": kinds.count("red cell"), "platelets": kinds.count("platelet")}
    row["keys of a cell"] = list(cells[0])
    row["cells"] = [_shipped_cell(c) for c in cells if _nucleated(c)]
    answers = [v for c in row["cells"] for v in (c["class"], *c["attributes"].values())]
    row["sure answers"] = len(answers) - answers.count(ANY)
    return row


def _shipped_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Return what is sure of a cell: names only where the margin is clear."""
    best = max(cell["probabilities"], key=cell["probabilities"].__getitem__)
    sure = cell["probabilities"][best] > 1 - CLEAR
    answers = {
        name: a["value"] if a["probability"] > 1 - CLEAR else ANY
        for name, a in cell["attributes"].items()
    }
    return {
        "box": cell["box"],
        "class": cell["class"] if sure else ANY,
        "best leaf": best if sure else ANY,
        "attributes": answers,
        "diameter_um": cell["diameter_um"],
    }


# ---- evaluation and planning -----------------------------------------------------------------


def evaluate_discs(work: Workshop) -> Any:
    """The record of an evaluation: of a model, of true cells only, and of a file of results."""
    folder = work.discs
    common = ("evaluate", "dataset.json", "--bootstrap", 20)
    model = ("--bundle", "bundle", "--threads", 1)
    printed = succeed(folder, *common, *model, "--json", "model.json")
    succeed(folder, *common, *model, "--cells", "--scale", "truth", "--json", "cells.json")
    shutil.copy(OLD / "v1" / "result.json", folder)
    of_file = ("--predictions", "result.json", "--level", "white-cell", "--split", "train")
    succeed(folder, *common, *of_file, "--json", "file.json")
    record = {
        "printed": lines(printed, folder),
        "model": json_of(folder / "model.json", folder),
        "true cells": json_of(folder / "cells.json", folder),
        "file of results": json_of(folder / "file.json", folder),
    }
    for name in ("true cells", "file of results"):
        reading = record[name]["reading"]
        reading["questions"] = {q: v["scores"] for q, v in reading["questions"].items()}
    return record


def evaluate_shipped(work: Workshop) -> Any:
    """The shipped bundle on rendered fields: which figures there are, and the steadiest of them."""
    folder = work.films
    words = ("--bootstrap", 0, "--threads", 1, "--json", "scores.json")
    succeed(folder, "evaluate", "drawn/dataset.json", *words)
    record = json_of(folder / "scores.json", folder)
    scores = record["detection"]["scores"]
    return {
        "keys": list(record),
        "keys of detection": list(record["detection"]),
        "questions": {q: list(v) for q, v in record["reading"]["questions"].items()},
        "settings": record["settings"],
        "notes": record["notes"],
        "detection": {k: round(scores[k], 2) for k in ("ap", "ap50", "ar", "recall50")},
    }


def annotate_plan(work: Workshop) -> Any:
    """The regions to mark by each planner, in three formats, and what they cost."""
    folder = work.discs
    words = ("annotate", "plan", "fields", "--budget", "20%", "--seed", 1)
    record = {}
    for by in ("uncertainty", "random", "cells"):
        printed = succeed(folder, *words, "--by", by, "--bundle", "bundle", "--out", f"plan-{by}")
        record[by] = {
            "printed": lines(printed, folder),
            "files": tree(folder / f"plan-{by}", folder, skip=(".jpg", ".png")),
        }
        if by != "uncertainty":  # the same fields and taxonomy again
            kept = record[by]["files"]["bloodfilm.json"]["fields"]
            record[by]["files"] = {"bloodfilm.json": {"fields": kept}}
    cost = succeed(folder, "annotate", "cost", "dataset.json", "--json")
    return record | {"cost": json.loads(cost)}


# ---- data sets -------------------------------------------------------------------------------


def films(work: Workshop) -> Any:
    """What is drawn of each look: the truth, and the colours in four by three parts."""
    truth = json_of(work.films / "drawn" / "dataset.json")
    for field in truth["fields"]:
        with Image.open(work.films / "drawn" / field["image"]) as image:
            small = np.asarray(image.convert("RGB").resize((4, 3), Image.Resampling.BOX))
        field["colours"] = small.tolist()
        cells = field.pop("cells")
        field["counts"] = {n: sum(c["class"] == n for c in cells) for n in _labels(cells)}
        field["cells"] = [c for c in cells if c["class"] not in ("red cell", "platelet")]
    return {k: v for k, v in truth.items() if k not in ("taxonomy", "schema")}


def _labels(cells: list[dict[str, Any]]) -> list[str]:
    return sorted({str(c["class"]) for c in cells})


def convert(work: Workshop) -> Any:
    """One data set in every format, and what is read back of each."""
    folder = work.discs
    record: dict[str, Any] = {}
    for name in FORMATS:
        images = ("--copy-images",) if name in ("folder", "yolo", "voc", "lld") else ()
        printed = succeed(
            folder, "data", "convert", "dataset.json", f"as/{name}", "--to", name, *images
        )
        read = run(folder, "data", "info", f"as/{name}", "--json")
        info = plain(json.loads(read.out), folder) if read.code == 0 else lines(read.err, folder)
        record[name] = {
            "printed": lines(printed, folder),
            "files": tree(folder / "as" / name, folder),
            "read back": info,
        }
    columns = ("--to", "lld", "--columns")
    for number in (5, 11, 12, 15, 16):
        words = ("data", "convert", "dataset.json", f"as/text{number}", *columns, number)
        record[f"lld, {number} columns"] = {
            "printed": lines(succeed(folder, *words), folder),
            "files": tree(folder / "as" / f"text{number}", folder),
        }
    return record


def audit(work: Workshop) -> Any:
    """Every known fault: what was planted, and what the audit says of it."""
    folder = work.bed
    succeed(folder, "data", "audit", "set", "--json", "audit.json", code=1)
    record = json_of(folder / "audit.json", folder)
    # What a classifier of backgrounds reaches depends on the last bits of the pixels.
    for finding in record["findings"]:
        if finding["code"] == "confounded":
            finding["message"] = ANY
            finding["data"] = ANY
    return {"planted": read_json(folder / "set" / "planted.json"), "audit": record}


def audit_labels(work: Workshop) -> Any:
    """What the audit says by labels alone."""
    succeed(work.bed, "data", "audit", "set", "--no-pixels", "--json", "labels.json", code=1)
    record = json_of(work.bed / "labels.json", work.bed)
    return {"counts": record["counts"], "codes": [f["code"] for f in record["findings"]]}


def fix(work: Workshop) -> Any:
    """The repaired copy of a faulty set, its changes, and what is left to a person."""
    printed = succeed(work.bed, "data", "fix", "set", "--out", "mended")
    record = tree(work.bed / "mended", work.bed)
    # The labels themselves tell what became of a cell, and the audit what was found.
    record["changes.jsonl"] = [_change(c) for c in record["changes.jsonl"]]
    record["left.jsonl"] = [f"{f['code']}: {f['file']}" for f in record["left.jsonl"]]
    return {"printed": lines(printed), "files": record}


def _change(change: dict[str, Any]) -> str:
    before, after = (
        value.get("id", "label") if isinstance(value, dict) else value
        for value in (change["before"], change["after"])
    )
    return (
        f"{change['rule']}: {change['file']} #{change['annotation']}, {change['action']}, "
        f"{before} -> {after} ({change['confidence']})"
    )


def split(work: Workshop) -> Any:
    """Splits by patient: as they come, anew, and with one patient left out."""
    record = {}
    ways: dict[str, tuple[object, ...]] = {
        "kept": (),
        "fresh": ("--fresh", "--test-share", 0.3, "--seed", 2),
        "patient 4": ("--leave-patient-out", "4"),
        "domain": ("--leave-domain-out", "H/100X/C2"),
    }
    for name, words in ways.items():
        done = run(work.bed, "data", "split", "set", "--out", f"{name}.json", *words)
        record[name] = {"code": done.code, "printed": lines(done.out), "error": lines(done.err)}
        if done.code == 0:
            made = json_of(work.bed / f"{name}.json")
            rows = made.pop("fields")
            made["fields"] = [f"{r['image']} {r['split']} {r['group']}" for r in rows]
            record[name]["file"] = made
    return record


def stats(work: Workshop) -> Any:
    """What is counted in a faulty set."""
    printed = succeed(work.bed, "data", "stats", "set", "--json", "stats.json")
    return {"printed": lines(printed), "stats": json_of(work.bed / "stats.json")}


def info(work: Workshop) -> Any:
    """What is said of a faulty set that is opened, as JSON labels and as text."""
    printed = succeed(work.bed, "data", "info", "set", "--json")
    text = succeed(work.bed, "data", "info", "set", "--json", "--labels", "AttriDet")
    return {
        "json": plain(json.loads(printed), work.bed),
        "text": plain(json.loads(text), work.bed),
    }


def overlaps(work: Workshop) -> Any:
    """Which fields of a faulty set show common glass; which boxes are one cell."""
    succeed(work.bed, "data", "overlaps", "set", "--no-subsets", "--json", "overlaps.json")
    return json_of(work.bed / "overlaps.json", work.bed)


def transfer(work: Workshop) -> Any:
    """Annotations carried over to photographs of the same fields in another camera."""
    folder = work.folder("pairs")
    subsets = ("--lld", "H_40X_C2", "--lld", "H_100X_C2")
    plan = ("--fields", 1, "--patients", 3, "--side", 640, "--seed", 4)
    succeed(folder, "films", "set", *subsets, *plan)
    words = ("data", "transfer", "set/H_100X_C2", "set/H_40X_C2/Images", "--out", "carried")
    printed = succeed(folder, *words, "--json", code=1)
    record = plain(json.loads(printed), folder)
    # How many patches agree depends on the last bits of the pixels, and so does what follows.
    shaky = ("confidence", "reason", "matches", "patches", "patches_that_agree", "residual_px")
    for pair in record["pairs"]:
        kept = set(pair) - set(shaky)
        if pair["verdict"] == "refused":
            kept = {"source", "target", "verdict"}
        pair.update(dict.fromkeys(set(pair) - kept, ANY))
    carried = json_of(folder / "carried" / "bloodfilm.json", folder)
    for field in carried["fields"]:
        field["meta"]["transfer_confidence"] = ANY
    return {"transfer.json": record, "fields": carried["fields"]}


# ---- training and export ---------------------------------------------------------------------


def _config(task: str, more: str = "") -> str:
    still = "\n".join(
        f"{name} = 0"
        for name in ("stain", "contrast", "recolour", "permute", "light", "blur", "noise", "scale",
                     "shrink", "aspect", "shift", "mild")
    )  # fmt: skip
    return f"""task = "{task}"
seed = 3
[model]
backbone = "lcnet_035"
width = 16
[data]
size = 128
train = [{{ path = "discs/dataset.json", splits = ["train"] }}]
validation = [{{ path = "discs/dataset.json", splits = ["val"] }}]
[optim]
epochs = 1
batch = 4
samples = 8
precision = "fp32"
workers = 0
[augment]
{still}
{more}"""


CONFIGS = {
    "detector": _config("detector"),
    "classifier": _config("classifier"),
    "sparse": _config("sparse", "[sparse]\nattributes = 0.5\nbegin = 0.5\n"),
}


def train(work: Workshop) -> Any:
    """What one epoch of each task leaves: files, weights by name and shape, record, log."""
    import torch

    record: dict[str, Any] = {}
    for name in CONFIGS:
        folder = work.runs / name
        weights = torch.load(folder / "best.pt", map_location="cpu", weights_only=True)["model"]
        shapes = [f"{k} {'x'.join(map(str, v.shape)) or '1'}" for k, v in weights.items()]
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
        record[name] = {
            "files": sorted(p.name for p in folder.iterdir()),
            "weights": [line for line in shapes if line not in record["detector"]["weights"]]
            if name == "sparse"  # a detector with attributes
            else shapes,
            "run.json": _without_measured(json_of(folder / "run.json", work.runs)),
            "log.jsonl": _without_numbers(log),
        }
    return record


def export(work: Workshop) -> Any:
    """The bundle of two runs: its files, and its manifest but for what was measured."""
    folder = work.runs
    names = ("detector", "classifier", "--data", ".", "--out", "bundle", "--name", "tiny")
    printed = succeed(folder, "export", *names, "--licence", "CC0-1.0", "--prior", "basophil=0.1")
    bundle = folder / "bundle"
    manifest = json_of(bundle / "manifest.json", folder)
    manifest["training"] = _keys(manifest["training"])
    succeed(folder, "analyze", "discs", "--bundle", "bundle", "--out", "with-it", "--no-report")
    return {
        "printed": [line.partition("(")[0] for line in lines(printed, folder)],
        "files": sorted(p.name for p in bundle.iterdir()),
        "manifest.json": _without_measured(manifest),
        "headings of the card": [
            line for line in lines((bundle / "MODEL_CARD.md").read_text("utf-8"))
            if line.startswith("#")
        ],
    }  # fmt: skip


MEASURED = ("metrics", "parity", "temperatures", "thresholds", "novelty_threshold", "environment")


def _without_measured(content: Any) -> Any:
    """Return data with `NUMBER` for each number that weights have a part in."""
    if not isinstance(content, dict):
        return content
    return {
        k: _without_numbers(v) if k in MEASURED else _without_measured(v)
        for k, v in content.items()
    }


def _without_numbers(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: v if k == "epoch" else _without_numbers(v) for k, v in content.items()
                if k not in ("seconds", "sha256")}  # fmt: skip
    if isinstance(content, list):
        return [_without_numbers(v) for v in content]
    return NUMBER if isinstance(content, float) else content


def _keys(content: Any) -> Any:
    """Return the keys of nested data; lists by their first item."""
    if isinstance(content, dict):
        return {k: _keys(v) for k, v in content.items()}
    if isinstance(content, list):
        return [_keys(content[0])] if content else []
    return type(content).__name__


def default_bundle(_: Workshop) -> Any:
    """The shipped bundle's manifest: all that analysis reads, sums of the graphs included."""
    manifest = read_json(Path(str(files("bloodfilm"))) / "bundles" / "default" / "manifest.json")
    record = manifest | {key: _keys(manifest[key]) for key in ("training", "metrics")}
    record["training"] = sorted(record["training"])
    record["metrics"] = sorted(record["metrics"])
    return record


CASES = {
    "analyze-discs": Case(analyze_discs, Tolerance(0.11, 1e-3)),
    "analyze-options": Case(analyze_options),
    "analyze-shipped": Case(analyze_shipped, OF_NETWORKS, slow=True),
    "annotate-plan": Case(annotate_plan, Tolerance(keys={"region": 1.5, "bbox": 1.5})),
    "audit": Case(audit, OF_PIXELS, slow=True),
    "audit-labels": Case(audit_labels, slow=True),
    "convert": Case(convert, Tolerance(1e-6, 1e-9)),
    "default-bundle": Case(default_bundle, Tolerance(1e-9, 0)),
    "evaluate-discs": Case(evaluate_discs),
    "evaluate-shipped": Case(evaluate_shipped, Tolerance(0.06), slow=True),
    "export": Case(export, slow=True),
    "films": Case(films, Tolerance(0.05, 1e-3, {"box": 0.5, "colours": 1})),
    "fix": Case(fix, OF_PIXELS, slow=True),
    "info": Case(info, OF_PIXELS, slow=True),
    "overlaps": Case(overlaps, Tolerance(0.02, 0.01, BOXES), slow=True),
    "split": Case(split, slow=True),
    "stats": Case(stats, OF_PIXELS, slow=True),
    "train": Case(train, slow=True),
    "transfer": Case(transfer, OF_ALIGNMENT, slow=True),
}
