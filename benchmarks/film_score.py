"""Does the film score tell blood films from other pictures? On pictures nobody set its limit by.

    python benchmarks/film_score.py --data DATA [--each 8] [--fields 12] [--json FILE] [--keep DIR]

Draws fourteen kinds of pictures that are no blood films, none of which the limit was chosen on, and
takes real fields, evenly spread over every set; each is analysed for itself. Prints the area under
the ROC curve of the score, the share of real fields that are accepted and of the drawn ones that
are refused, by kind. Pictures without a score (bare glass) count as refused. `--keep` writes the
drawn pictures.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.evaluation.class_figures import rank_auroc
from bloodfilm.evaluation.intervals import wilson_interval
from bloodfilm.formats import open_dataset
from bloodfilm.inference.film_score import MIN_FILM_SCORE
from bloodfilm.inference.model import Model, load_model

Image = NDArray[np.uint8]
Rng = np.random.Generator
WIDTH, HEIGHT = 720, 540
SETS = ("bccd", "bcisc", "chula", "krd", "lld40x", "pbc", "pig_wbc", "txl_pbc")
SEED = 30_029


def canvas(colour: tuple[float, float, float]) -> NDArray[np.float64]:
    return np.full((HEIGHT, WIDTH, 3), colour, dtype=np.float64)


def finished(values: NDArray[np.float64], rng: Rng) -> Image:
    """Blur a little, add sensor noise."""
    soft = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.5, 1.2))
    noise = rng.normal(0, rng.uniform(0.5, 4), soft.shape)
    return np.clip(soft + noise, 0, 255).astype(np.uint8)


def colour(rng: Rng, low: float = 0, high: float = 255) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in rng.uniform(low, high, 3))
    return red, green, blue


def ellipse(image: NDArray[np.float64], rng: Rng, size: tuple[float, float], ink: object) -> None:
    """Draw an ellipse anywhere, of axes (w, h) px."""
    at = (rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT))
    cv2.ellipse(image, (at, size, rng.uniform(0, 180)), ink, -1, cv2.LINE_AA)


def faces(rng: Rng) -> Image:
    image = canvas(colour(rng, 60, 240))
    for _ in range(int(rng.integers(1, 7))):
        x, y, r = rng.uniform(80, WIDTH - 80), rng.uniform(80, HEIGHT - 80), rng.uniform(40, 110)
        skin = tuple(np.array([225, 175, 145]) * rng.uniform(0.5, 1.1))
        cv2.ellipse(image, ((x, y), (1.5 * r, 2 * r), 0), skin, -1, cv2.LINE_AA)
        cv2.ellipse(image, ((x, y - 0.8 * r), (1.6 * r, 0.9 * r), 0), colour(rng, 0, 90), -1)
        for side in (-1, 1):
            eye = (x + side * 0.35 * r, y - 0.1 * r)
            cv2.ellipse(image, (eye, (0.3 * r, 0.16 * r), 0), (250, 250, 250), -1, cv2.LINE_AA)
            cv2.ellipse(image, (eye, (0.13 * r, 0.13 * r), 0), (50, 35, 30), -1, cv2.LINE_AA)
        cv2.ellipse(image, ((x, y + 0.5 * r), (0.6 * r, 0.2 * r), 0), (170, 70, 75), -1)
    return finished(image, rng)


def street(rng: Rng) -> Image:
    image = canvas(colour(rng, 150, 240))
    x = 0.0
    while x < WIDTH:
        w, h = rng.uniform(60, 160), rng.uniform(150, HEIGHT - 60)
        front = (int(x), int(HEIGHT - h))
        cv2.rectangle(image, front, (int(x + w), HEIGHT), colour(rng, 60, 200), -1)
        pane = colour(rng, 20, 255)
        for row in np.arange(HEIGHT - h + 15, HEIGHT - 20, 38):
            for column in np.arange(x + 10, x + w - 18, 28):
                a, b = (int(column), int(row)), (int(column + 14), int(row + 20))
                cv2.rectangle(image, a, b, pane, -1)
        x += w + rng.uniform(0, 8)
    return finished(image, rng)


def chart(rng: Rng) -> Image:
    image = canvas((255, 255, 255))
    for y in range(40, HEIGHT, 60):
        cv2.line(image, (50, y), (WIDTH - 30, y), (215, 215, 215), 1)
    for _ in range(int(rng.integers(2, 5))):
        steps = np.cumsum(rng.normal(0, 14, 60)) + rng.uniform(120, 400)
        points = np.stack([np.linspace(50, WIDTH - 30, 60), steps], axis=1).astype(np.int32)
        ink = colour(rng, 0, 200)
        cv2.polylines(image, [points], False, ink, 2, cv2.LINE_AA)
        for px, py in points[::4]:
            cv2.circle(image, (int(px), int(py)), 5, ink, -1, cv2.LINE_AA)
    return finished(image, rng)


def gram(rng: Rng) -> Image:
    """Bacteria in Gram's stain: violet cocci in clusters, pink rods."""
    image = canvas((238, 228, 222))
    for _ in range(int(rng.integers(20, 50))):
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        for _ in range(int(rng.integers(3, 25))):
            at = (x + rng.normal(0, 14), y + rng.normal(0, 14))
            cv2.ellipse(image, (at, (7, 7), 0), (84, 48, 132), -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(40, 160))):
        ellipse(image, rng, (5, rng.uniform(14, 26)), (214, 110, 140))
    return finished(image, rng)


def fluorescence(rng: Rng) -> Image:
    image = canvas((4, 6, 8))
    for _ in range(int(rng.integers(40, 160))):
        r = rng.uniform(18, 34)
        ellipse(image, rng, (r, r * rng.uniform(0.8, 1.2)), (15, rng.uniform(90, 240), 60))
        ellipse(image, rng, (r * 0.6, r * 0.6), (30, 60, rng.uniform(120, 240)))
    return finished(image, rng)


def cytology(rng: Rng) -> Image:
    """Squamous cells in Papanicolaou's stain: wide, angular, pale, with a small nucleus."""
    image = canvas((236, 238, 240))
    tints = np.array([[175, 205, 205], [228, 190, 175], [190, 200, 225]])
    for _ in range(int(rng.integers(25, 60))):
        centre = rng.uniform(0, 1, 2) * (WIDTH, HEIGHT)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        reach = rng.uniform(45, 80, 7)[:, None]
        corners = centre + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        layer = image.copy()
        ink = tuple(float(v) for v in tints[rng.integers(3)] + rng.normal(0, 8, 3))
        cv2.fillPoly(layer, [corners.astype(np.int32)], ink, cv2.LINE_AA)
        image = 0.35 * image + 0.65 * layer
        at = (float(centre[0]), float(centre[1]))
        cv2.ellipse(image, (at, (13, 11), 0), (70, 60, 110), -1, cv2.LINE_AA)
    return finished(image, rng)


def coins(rng: Rng) -> Image:
    """Round things of one size, close together."""
    image = canvas(colour(rng, 170, 245))
    r = rng.uniform(24, 60)
    ink = np.array(colour(rng, 60, 190))
    for y in np.arange(0, HEIGHT, 2.3 * r):
        for x in np.arange(0, WIDTH, 2.3 * r):
            at = (x + rng.normal(0, 0.12 * r), y + rng.normal(0, 0.12 * r))
            shade = tuple(float(v) for v in ink * rng.uniform(0.85, 1.1))
            cv2.ellipse(image, (at, (2 * r, 2 * r), 0), shade, -1, cv2.LINE_AA)
            rim = tuple(float(v) for v in ink * 0.6)
            cv2.ellipse(image, (at, (1.7 * r, 1.7 * r), 0), rim, 2, cv2.LINE_AA)
    return finished(image, rng)


def foliage(rng: Rng) -> Image:
    image = canvas((60, 80, 40))
    for _ in range(900):
        ink = np.array([90, 140, 60]) * rng.uniform(0.5, 1.5) + rng.normal(0, 10, 3)
        size = (rng.uniform(10, 26), rng.uniform(30, 70))
        ellipse(image, rng, size, tuple(float(v) for v in ink))
    return finished(image, rng)


def bricks(rng: Rng) -> Image:
    image = canvas((205, 200, 190))
    base = np.array([170, 85, 65])
    for row, y in enumerate(range(0, HEIGHT, 34)):
        for x in range(-80 + 40 * (row % 2), WIDTH, 80):
            ink = tuple(float(v) for v in base * rng.uniform(0.75, 1.2))
            cv2.rectangle(image, (x + 2, y + 2), (x + 76, y + 30), ink, -1)
    return finished(image, rng)


def fabric(rng: Rng) -> Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pitch, angle = rng.uniform(6, 22), rng.uniform(0, np.pi)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    weave = 0.5 + 0.25 * (np.sin(2 * np.pi * u / pitch) + np.sin(2 * np.pi * v / pitch))
    first, last = np.array(colour(rng)), np.array(colour(rng))
    return finished(first + (last - first) * weave[..., None], rng)


def plate(rng: Rng) -> Image:
    """Colonies on agar."""
    image = canvas((30, 30, 30))
    agar = colour(rng, 140, 225)
    cv2.ellipse(image, ((WIDTH / 2, HEIGHT / 2), (510, 510), 0), agar, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(20, 120))):
        r = rng.uniform(5, 16)
        ellipse(image, rng, (r, r), (235, 228, 190))
    return finished(image, rng)


def handwriting(rng: Rng) -> Image:
    image = canvas((248, 246, 238))
    for y in range(50, HEIGHT, 48):
        points = [(30.0, float(y))]
        while points[-1][0] < WIDTH - 40:
            px, _ = points[-1]
            points.append((px + rng.uniform(3, 9), y + rng.normal(0, 9)))
        line = np.array(points, dtype=np.int32)
        cv2.polylines(image, [line], False, (30, 40, 110), 2, cv2.LINE_AA)
    return finished(image, rng)


def trichrome(rng: Rng) -> Image:
    """Tissue in Masson's trichrome: blue collagen, red muscle, dark nuclei."""
    image = canvas((190, 205, 225))
    for _ in range(260):
        ink = ((196, 70, 90), (110, 140, 200))[int(rng.integers(2))]
        layer = image.copy()
        ellipse(layer, rng, (rng.uniform(16, 40), rng.uniform(90, 260)), ink)
        image = 0.4 * image + 0.6 * layer
    for _ in range(300):
        ellipse(image, rng, (rng.uniform(5, 9), rng.uniform(10, 20)), (60, 30, 60))
    return finished(image, rng)


def food(rng: Rng) -> Image:
    """Cherries, peas and the like on a plate."""
    image = canvas(colour(rng, 200, 250))
    ink, r = np.array(colour(rng, 30, 200)), rng.uniform(30, 60)
    for _ in range(int(rng.integers(10, 40))):
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        for step in np.linspace(1, 0.1, 8):
            shade = tuple(float(v) for v in np.clip(ink + (1 - step) * 110, 0, 255))
            at = (x - (1 - step) * 0.3 * r, y - (1 - step) * 0.3 * r)
            cv2.ellipse(image, (at, (2 * r * step, 2 * r * step), 0), shade, -1, cv2.LINE_AA)
    return finished(image, rng)


KINDS: tuple[Callable[[Rng], Image], ...] = (
    faces,
    street,
    chart,
    gram,
    fluorescence,
    cytology,
    coins,
    foliage,
    bricks,
    fabric,
    plate,
    handwriting,
    trichrome,
    food,
)


def score_of(model: Model, picture: object) -> float:
    """Return the film score; 0 where a picture gets none or is refused as it is."""
    try:
        result = model.analyze(picture)  # type: ignore[arg-type]
    except BloodfilmError:
        return 0.0
    return result.view.film_score or 0.0


def share(values: list[bool]) -> str:
    """Write a share with its 95 % interval."""
    low, high = wilson_interval(sum(values), len(values))
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}] of {len(values)}"


def main() -> None:
    """Draw, analyse, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--fields", type=int, default=12)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    films: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    with load_model() as model:
        for number, kind in enumerate(track(KINDS, "drawn")):
            for copy in range(given.each):
                picture = kind(np.random.default_rng([SEED, number, copy]))
                if given.keep is not None:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    file = given.keep / f"{kind.__name__}_{copy}.png"
                    cv2.imwrite(str(file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                others.setdefault(kind.__name__, []).append(score_of(model, picture))
        for name in track(SETS, "films"):
            paths = [f.path for f in open_dataset(given.data / name)]
            places = evenly_spread(len(paths), given.fields).tolist()
            films[name] = [score_of(model, paths[i]) for i in places]
    real = [s for scores in films.values() for s in scores]
    drawn = [s for scores in others.values() for s in scores]
    auroc = rank_auroc(np.array(real), np.array(drawn))
    for name, scores in (films | others).items():
        passed = sum(s >= MIN_FILM_SCORE for s in scores)
        print(
            f"{name:14} {passed:3} of {len(scores)} accepted, {min(scores):.2f}-{max(scores):.2f}"
        )
    print(f"area under the ROC curve {auroc:.4f}")
    print(f"films accepted {share([s >= MIN_FILM_SCORE for s in real])}")
    print(f"others refused {share([s < MIN_FILM_SCORE for s in drawn])}")
    if given.json:
        record = {
            "auroc": round(auroc, 4),
            "limit": MIN_FILM_SCORE,
            "films": films,
            "others": others,
        }
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
