"""Kill an analysis at random moments, resume it, and compare every byte with an undisturbed run.

    python benchmarks/staying_power.py --fields 1000 --kills 5 --out out/staying
    python benchmarks/staying_power.py --slide 8000 --kills 5 --out out/staying-slide

Fields are drawn: some are rendered, the others are those turned, mirrored and with noise of their
own, so that no two files are the same picture. Each kill is `kill -9`, at a moment drawn from
the processor time that the undisturbed run took, so that it hits any stage: pooling the scale,
fields, cases, writing the report. What differs is named, and the exit code is 1.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from bloodfilm.core.arrays import Image
from bloodfilm.synthetic import render_field

TURNS = 8
"""Views of a square field: four turns, mirrored or not."""
WRITTEN = re.compile(rb"\d{1,2} [A-Z][a-z]+ \d{4}, \d\d:\d\d|datetime=\"[^\"]*\"")
"""When a report was written, which it says of itself."""
NOISE = 2.0
"""Standard deviation of a view's own noise, grey levels."""
STATUS = "VmHWM"
LOOK_EVERY = 0.2


def draw_fields(folder: Path, count: int, side: int) -> list[Path]:
    """Write so many fields that are all different; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.png" for number in range(count)]
    rendered: tuple[int, Image] | None = None
    for number, path in enumerate(paths):
        if path.exists():
            continue
        seed, turn = divmod(number, TURNS)
        if rendered is None or rendered[0] != seed:
            rendered = seed, render_field("lld40x-like", seed=seed, size=(side, side))[0]
        view = np.rot90(rendered[1], turn % 4)
        view = view[:, ::-1] if turn >= 4 else view
        noise = np.random.default_rng(number).normal(0, NOISE, view.shape)
        pixels = np.clip(np.rint(view + noise), 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return paths


def draw_slide(folder: Path, side: int) -> list[Path]:
    """Write a drawn slide with thick area, monolayer and feathered edge."""
    from bloodfilm.synthetic.slides import SlideFilm, SlideSpec, write_slide

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"slide-{side}.svs"
    if not path.exists():
        write_slide(
            SlideFilm(SlideSpec(width=side, height=side, um_per_px=0.25, seed=1)), path, "svs"
        )
    return [path]


def contents(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its place in it.

    Of a page without the time at which it was written.
    """
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        data = WRITTEN.sub(b"", data) if path.suffix == ".html" else data
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def used(process: int) -> tuple[float, float]:
    """Return processor seconds of a process, and the most memory it ever held, MiB."""
    stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    peak = next((int(line.split()[1]) / 1024 for line in status if line.startswith(STATUS)), 0.0)
    return seconds, peak


def analyze(
    source: Path, out: Path, options: list[str], kill_after: float | None = None
) -> dict[str, float | bool]:
    """Analyse a folder; kill the process once it has used so many processor seconds."""
    command = [sys.executable, "-m", "bloodfilm", "analyze", str(source), "--out", str(out)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    seconds = peak = 0.0
    killed = False
    while process.poll() is None:
        try:
            seconds, held = used(process.pid)
            peak = max(peak, held)  # of a process that has ended it is not known
        except (OSError, IndexError):
            break
        if kill_after is not None and seconds >= kill_after:
            process.send_signal(signal.SIGKILL)
            killed = True
            break
        time.sleep(LOOK_EVERY)
    _, said = process.communicate()
    if process.returncode and not killed:
        raise SystemExit(f"analyze failed: {said.decode(errors='replace')[-800:]}")
    return {
        "killed": killed,
        "seconds": round(time.perf_counter() - begin, 1),
        "processor_seconds": round(seconds, 1),
        "peak_mib": round(peak, 1),
    }


def main() -> int:
    """Run the comparison; 0 if every file is the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", type=int, default=1000)
    parser.add_argument("--side", type=int, default=256, help="of a field, px")
    parser.add_argument("--slide", type=int, help="side of a drawn slide, px, instead of fields")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/staying"))
    args = parser.parse_args()
    source, options = args.out / "images", ["--threads", str(args.threads)]
    if args.slide:
        draw_slide(source, args.slide)
    else:
        draw_fields(source, args.fields, args.side)
    whole = analyze(source, args.out / "whole", [*options, "--overwrite"])
    total = float(whole["processor_seconds"])
    moments = random.Random(args.seed)
    killed, resume = args.out / "killed", "--overwrite"
    runs = []
    for _ in range(args.kills):
        # On average the kills are spread over the whole, though what is done is not done again.
        moment = moments.uniform(0, 2) * total / (args.kills + 1)
        run = analyze(source, killed, [*options, resume], moment)
        runs.append(run)
        # Before its results log is there a run has kept nothing, and there is nothing to resume.
        kept = any((killed / name).exists() for name in ("results.part.jsonl", "result.json"))
        resume = "--resume" if kept else "--overwrite"
    runs.append(analyze(source, killed, [*options, resume]))
    one, two = contents(args.out / "whole"), contents(killed)
    different = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    record = {"whole": whole, "runs": runs, "files": len(one), "different": different[:20]}
    print(json.dumps(record, indent=1))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
