"""Which films are far from all training films? Add the statistics to a bundle, hold sets apart.

    python benchmarks/film_statistics.py --bundle DIR --data DATA [--fields 40] [--others lld40x]

Measures stain and optics of the sets that the bundle's classifier was trained on, writes them into
its manifest (`films`), and prints two tables: for each training set the share of its fields that
would be called far if the set were unknown, and for `--others`, sets that were in no training, the
share that is called far, by patient where patients are known.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.progress import track

from bloodfilm.core import issue_codes
from bloodfilm.core.issues import codes
from bloodfilm.core.results import FieldResult
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.export.film_statistics import FIELDS, add_film_statistics
from bloodfilm.formats import open_dataset
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import analyze_many


def main() -> None:
    """Add the statistics, print what they say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fields", type=int, default=FIELDS)
    parser.add_argument("--others", nargs="*", default=[])
    given = parser.parse_args()
    print("training set, fields, far if unknown, far, median distance from the nearest other")
    for row in add_film_statistics(given.bundle, given.data, given.fields):
        print(f"{row.site}, {row.fields}, {row.far:.2f}, {row.own:.2f}, {row.distance}")
    with Model(load_bundle(given.bundle)) as model:
        for name in given.others:
            by_patient: dict[str, list[Path]] = {}
            for item in open_dataset(given.data / name):
                by_patient.setdefault(item.patient or "all", []).append(item.path)
            for patient, paths in by_patient.items():
                places = evenly_spread(len(paths), given.fields).tolist()
                some = [paths[i] for i in places]
                found = track(analyze_many(some, model), f"{name} {patient}", total=len(some))
                far = [
                    issue_codes.UNFAMILIAR_FILM in codes(r.issues)
                    for r in found
                    if isinstance(r, FieldResult)
                ]
                print(f"{name} {patient}: {len(far)} fields, far {np.mean(far):.2f}", flush=True)


if __name__ == "__main__":
    main()
