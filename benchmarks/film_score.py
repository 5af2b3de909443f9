"""Does the film score tell blood films from other pictures?

    python benchmarks/film_score.py --data DATA [--each 4] [--fields 12] [--pictures FOLDER]
                                    [--json FILE] [--keep DIR]

Draws fifty-one kinds of pictures that are no blood films (`other_pictures`) and takes real fields,
evenly spread over every set; each is analysed for itself. `--pictures` adds pictures of your own
that are no blood films. Prints the area under the ROC curve of the score, for all kinds and for
those that were not looked at when the evidence was chosen; the share of real fields that are
accepted and of the others that are refused, by kind. Pictures without a score (bare glass) count as
refused. `--keep` writes the drawn pictures.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from other_pictures import FIRST, FURTHER, JUDGE
from rich.progress import track

from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.evaluation.class_figures import rank_auroc
from bloodfilm.evaluation.intervals import wilson_interval
from bloodfilm.formats import open_dataset
from bloodfilm.inference.film_score import MIN_FILM_SCORE
from bloodfilm.inference.model import Model, load_model

SETS = (
    "bccd",
    "bcisc",
    "chula",
    "krd",
    "lld100x_unlabelled",
    "lld40x",
    "lld_pairs",
    "lmu",
    "pbc",
    "pig_wbc",
    "txl_pbc",
)
SEED = 30_029
FURTHER_FROM = 100
"""Number of the first further kind, part of the seed of its pictures."""
KINDS = (*enumerate(FIRST), *enumerate(FURTHER, FURTHER_FROM))


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
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--fields", type=int, default=12)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    films: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    with load_model() as model:
        for name in track(SETS, "films"):
            paths = [f.path for f in open_dataset(given.data / name)]
            places = evenly_spread(len(paths), given.fields).tolist()
            films[name] = [score_of(model, paths[i]) for i in places]
        for number, kind in track(KINDS, "drawn"):
            for copy in range(given.each):
                picture = kind(np.random.default_rng([SEED, number, copy]))
                if given.keep is not None:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    file = given.keep / f"{kind.__name__}_{copy}.png"
                    cv2.imwrite(str(file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                others.setdefault(kind.__name__, []).append(score_of(model, picture))
        if given.pictures is not None:
            paths = [f.path for f in open_dataset(given.pictures)]
            others["pictures"] = [score_of(model, path) for path in track(paths, "pictures")]
    real = [s for scores in films.values() for s in scores]
    groups = {
        "all": list(others),
        "first": [kind.__name__ for kind in FIRST],
        "design": [kind.__name__ for kind in FURTHER if kind.__name__ not in JUDGE],
        "judge": sorted(JUDGE),
    }
    for name, scores in (films | others).items():
        passed = sum(s >= MIN_FILM_SCORE for s in scores)
        print(
            f"{name:18} {passed:3} of {len(scores)} accepted, {min(scores):.2f}-{max(scores):.2f}"
        )
    auroc: dict[str, float] = {}
    for group, kinds in groups.items():
        drawn = [s for kind in kinds for s in others[kind]]
        auroc[group] = round(rank_auroc(np.array(real), np.array(drawn)), 4)
        refused = share([s < MIN_FILM_SCORE for s in drawn])
        print(f"{group:8} area under the ROC curve {auroc[group]:.4f}, refused {refused}")
    print(f"films accepted {share([s >= MIN_FILM_SCORE for s in real])}")
    if given.json:
        record = {
            "auroc": auroc.pop("all"),
            "auroc_by_group": auroc,
            "limit": MIN_FILM_SCORE,
            "films": films,
            "others": others,
        }
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
