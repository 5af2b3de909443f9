"""Whether a case counts a field once that lies in it many times over: copies and focus planes.

    BLOODFILM_DATA=... python benchmarks/copies.py [--sets bcisc chula] [--fields 3]

Of each field of a set a case holds the file itself, its bytes again, JPEG of two qualities, smaller
and larger copies, all turns by right angles and mirror images, other brightness and white balance,
four focal planes with a small shift each, and an empty field of its colour, analysed by the whole
command. Printed: what the case said of each kind, and by how many pictures each field's cells were
counted, which should be one.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mosaics import labelled_boxes

from bloodfilm.core.arrays import Floats32, Image
from bloodfilm.core.results import AnalysisRun
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.workflows.analyze import AnalysisJob, analyze

PLANES = (1.0, 2.0, 3.5, 6.0)
"""Defocus, px; those of 6 show next to nothing."""


def versions(image: Image, rng: np.random.Generator) -> Iterator[tuple[str, Floats32 | Image, int]]:
    """Yield name, pixels and JPEG quality (0 for PNG) of each picture of a field."""
    height, width = image.shape[:2]
    for blur in PLANES:  # first by name, so that a blurred one is met first
        shift = np.array([[1, 0, rng.uniform(-3, 3)], [0, 1, rng.uniform(-3, 3)]])
        moved = cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
        yield f"a-plane-{blur:g}", cv2.GaussianBlur(moved, (0, 0), blur), 90
    yield "b-itself", image, 0
    yield "d-quality-60", image, 60
    yield "d-quality-92", image, 92
    for factor in (0.7, 1.5):
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        resized = cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind)
        yield f"e-resized-{factor:g}", resized, 85
    for quarter in (1, 2, 3):
        yield f"f-turned-{90 * quarter}", np.rot90(image, quarter), 90
    for quarter in (0, 1, 2, 3):
        yield f"g-mirrored-{90 * quarter}", np.rot90(image[:, ::-1], quarter), 90
    light = image.astype(np.float32)
    yield "h-brighter", light * np.float32(1.05) + noise(image, rng), 90
    warm = np.array([0.9, 0.85, 0.78], np.float32)
    yield "h-darker-and-warmer", light * warm + noise(image, rng), 85
    glass = np.percentile(image.reshape(-1, 3), 92, axis=0).astype(np.float32)
    yield "i-empty", np.zeros_like(light) + glass + noise(image, rng), 90


def noise(image: Image, rng: np.random.Generator) -> Floats32:
    """Return the noise of a camera for a picture."""
    return rng.normal(0, 2, image.shape).astype(np.float32)


def one_set(data: Path, name: str, count: int) -> dict[str, Any]:
    """Copy fields of a set, analyse them as a case, and judge it."""
    rng = np.random.default_rng([5, sum(map(ord, name))])
    paths = {p.name: p for p in (data / name).rglob("*.webp") if "mask" not in str(p)}
    usable = sorted(n for n in labelled_boxes(data, name) if n in paths)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "case"
        place.mkdir()
        for number, chosen in enumerate(rng.permutation(usable)[:count].tolist()):
            for kind, pixels, quality in versions(open_image(paths[chosen]), rng):
                eight = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[..., ::-1]
                file = place / f"{number}-{kind}.{'jpg' if quality else 'png'}"
                options = [cv2.IMWRITE_JPEG_QUALITY, quality] if quality else []
                cv2.imwrite(str(file), np.ascontiguousarray(eight), options)
            shutil.copy(place / f"{number}-b-itself.png", place / f"{number}-c-bytes.png")
        out = Path(folder) / "out"
        analyze(AnalysisJob(paths=[place], out=out, report=False, workers=1))
        (case,) = AnalysisRun.read(out).cases
        fields = list(case.fields)
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for result, placement in zip(fields, case.placements, strict=True):
        kind = Path(result.path).stem.partition("-")[2]
        said[kind][placement.issues[0].code if not placement.counted else "counted"] += 1
    at = {p.number: k for k, p in enumerate(case.placements)}
    shown = {Path(fields[at[c.shown.field]].path).stem for c in case.cells if c.counted}
    pictures = Counter(int(stem.partition("-")[0]) for stem in shown)
    return {
        "set": name,
        "fields": count,
        "pictures_that_count_for_a_field": [pictures[k] for k in range(count)],
        "said": {kind: dict(codes) for kind, codes in sorted(said.items())},
    }


def main() -> None:
    """Judge all sets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=["bcisc", "chula", "krd", "lld40x"])
    parser.add_argument("--fields", type=int, default=3, help="of each set")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data = Path(os.environ["BLOODFILM_DATA"])
    records = [one_set(data, name, args.fields) for name in args.sets]
    print(json.dumps(records, indent=1))
    if args.json:
        args.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
