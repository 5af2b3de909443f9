"""What reads files of others: a valid file of each kind, and how it is read."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import bloodfilm
from bloodfilm.core import Cell, Dataset, Domain, Field, Region
from bloodfilm.core.issues import messages
from bloodfilm.core.results import AnalysisRun
from bloodfilm.evaluation.predictions import read_predictions
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.imaging.headers import image_size
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.bundle import default_bundle
from bloodfilm.inference.manifest import MANIFEST, read_manifest
from bloodfilm.inference.results_log import ResultsLog
from bloodfilm.registration.pairing import from_file
from bloodfilm.splits.split_file import read_split
from bloodfilm.training.config import load_config
from fixtures.made_up_results import make_field, make_run

NAME = "7_1_2_400_AML.png"
RUN = {"bundle": {"sha256": "ab"}, "settings": {"paths": ["x"]}}


@dataclass(frozen=True)
class Target:
    """One kind of file: where it lies, and what reads it."""

    file: Path
    read: Callable[[], object]


def make(kind: str, place: Path) -> Target:
    """Write a valid file of a kind below `place`."""
    group, _, name = kind.partition(":")
    return _MAKERS[group](place, name)


def _picture() -> Image.Image:
    y, x = np.mgrid[:48, :64]
    return Image.fromarray(np.stack([x * 4, y * 5, x + y], axis=2).astype(np.uint8))


def _dataset(place: Path) -> Dataset:
    path = place / "pictures" / NAME
    path.parent.mkdir(parents=True)
    _picture().save(path)
    cells = (
        Cell((1, 2, 10, 12), "myeloblast", {"nuclear_shape": "regular"}, id="a"),
        Cell((30, 2, 10, 12), "lymphocyte", id="b"),
    )
    region, domain = Region.polygon([(0, 0), (50, 0), (50, 40)]), Domain("H", 40, "C2", 0.562)
    return Dataset("x", (Field(path, 64, 48, cells, region, domain, "7", "train", "AML"),))


_SUFFIX = {"qupath": ".geojson", "index": ".parquet"}


def _labels(place: Path, name: str) -> Target:
    """Labels of a format; `yolo/data.yaml` and the like name one of the set's files."""
    format, _, inner = name.partition("/")
    dataset = _dataset(place)
    if format in ("coco", "bloodfilm", "label_studio", "qupath", "index"):
        file = place / f"x{_SUFFIX.get(format, '.json')}"
        save_dataset(dataset, file, format)
        if format == "index":
            return Target(file, lambda: _unchanged(open_dataset(file, format), dataset))
        return Target(file, lambda: _sound(open_dataset(file, format)))
    out = place / "set"
    save_dataset(dataset, out, format, images="copy")
    (file,) = (p for p in out.rglob(inner or "*.xml") if p.name != "classes.txt")
    root = out / "H_40X_C2" if format == "lld" else out
    return Target(file, lambda: _sound(open_dataset(root, format)))


def _sound(dataset: Dataset) -> None:
    """Read every field, and check what every reader promises of its boxes and labels."""
    for item in dataset:
        for cell in item.cells:
            assert cell.label is None or cell.label in dataset.taxonomy
            assert cell.box is None or np.isfinite(cell.box).all()
            assert cell.box is None or min(cell.box[2:]) > 0
    assert all("\n" not in line for line in messages(dataset.issues))


def _unchanged(found: Dataset, written: Dataset) -> None:
    """Read every field: an index has checksums, so what can be read at all is what was written."""
    assert list(found) == list(written)
    assert found.taxonomy == written.taxonomy and found.schema == written.schema
    assert (found.name, found.issues) == (written.name, written.issues)


_SAVING: dict[str, dict[str, Any]] = {
    "png": {},
    "bmp": {},
    "gif": {},
    "jpeg": {"quality": 90},
    "progressive": {"format": "jpeg", "progressive": True},
    "tiff": {"compression": "tiff_lzw"},
    "webp": {"lossless": True},
}


def _image(place: Path, name: str) -> Target:
    options = {"format": name, **_SAVING[name]}
    stream = BytesIO()
    _picture().convert("P" if name == "gif" else "RGB").save(stream, **options)
    file = place / f"a.{options['format'].replace('tiff', 'tif')}"
    file.write_bytes(stream.getvalue())

    def read() -> None:
        image_size(file)
        pixels = open_image(file, max_pixels=1 << 20)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3

    return Target(file, read)


def _result(place: Path, name: str) -> Target:
    rng = np.random.default_rng(3)
    run = make_run([make_field(place / f"{n}.png", rng) for n in "ab"])
    file = place / name
    if name == "cells.csv":
        file.write_text(
            "image,x,y,w,h,score,object_type,class,class_score,nuclear_shape,"
            "nuclear_shape_probability\n"
            "a.png,1,2,30,31,0.9,nucleated cell,lymphocyte,0.8,regular,0.7\n"
        )
        return Target(file, lambda: read_predictions(file))
    if name == "pairs.csv":
        file.write_text("source,target\na.png,b.png\n")
        return Target(file, lambda: from_file(file, [Path("a.png")], [Path("b.png")]))
    if name == "journal":
        with ResultsLog(file, RUN) as log:
            log.add_inputs({0: "aa"})
            for number, item in enumerate(run.fields):
                log.append(number, item)
        return Target(file, lambda: _resume(file))
    run.write(file)
    return Target(file, lambda: _read_run(file))


def _resume(file: Path) -> None:
    with ResultsLog(file, RUN, resume=True) as log:
        assert all(item.path is not None for item in log.fields)


def _read_run(file: Path) -> None:
    for item in AnalysisRun.read(file).fields:
        json.dumps(item.to_json())


def _settings(place: Path, name: str) -> Target:
    file = place / name
    if name == MANIFEST:
        file.write_bytes((default_bundle().path / MANIFEST).read_bytes())
        return Target(file, lambda: read_manifest(file.read_bytes(), str(file)))
    if name == "split.json":
        rows = [{"image": "a.png", "split": "train", "group": 0}]
        content = {"format": "bloodfilm-split", "version": 1, "plan": {}, "notes": ["x"]}
        file.write_text(json.dumps({**content, "fields": rows}))
        return Target(file, lambda: read_split(file))
    shutil.copy(Path(bloodfilm.__file__).parent / "configs" / "detector.toml", file)
    return Target(file, lambda: load_config(file))


_MAKERS = {"labels": _labels, "image": _image, "result": _result, "settings": _settings}


def kinds() -> Iterator[str]:
    """Yield the kinds of files."""
    for name in ("coco", "bloodfilm", "label_studio", "qupath", "index", "cvat", "voc"):
        yield f"labels:{name}"
    yield from ("labels:yolo/data.yaml", f"labels:yolo/{Path(NAME).stem}.txt")
    yield "labels:lld/train.json"
    yield from (f"image:{name}" for name in _SAVING)
    for name in ("result.json", "cells.csv", "journal", "pairs.csv"):
        yield f"result:{name}"
    for name in (MANIFEST, "split.json", "run.toml"):
        yield f"settings:{name}"
