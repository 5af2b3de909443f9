"""Stain and optics of a bundle's training films, measured by the bundle itself."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodfilm.core.arrays import Floats
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import NoProgress, OneStage, Progress, track
from bloodfilm.core.results import FieldResult
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.export.recovered import config_of
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.film_profile import FEATURES, film_profile
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.manifest import FilmStatistics
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import SAMPLES, analyze_many
from bloodfilm.training.data.sources import open_sources

FIELDS = 40
"""Fields of a training set that are measured."""
MIN_FIELDS = 5
"""Fields of a set without which it is left out."""
MIN_FILM_FIELDS = 3
"""Fields of a patient's film without which it counts among the others of its set."""
MOST_FILMS = 60
"""Films of a set that are measured."""
ACCEPTED = 0.975
"""Share of the training fields that the limit accepts."""
LEAST_SPREAD = 0.01
CAUTION = 2.5
"""On far films the share of doubt in a name must be this many times smaller."""


@dataclass(frozen=True)
class LeftOut:
    """A training set held against the others, as if it were new.

    Attributes:
        site: its name.
        fields: how many were measured.
        far: share of them beyond the limit if the set were unknown.
        own: the same with the set known.
        distance: median distance from the nearest other set.
    """

    site: str
    fields: int
    far: float
    own: float
    distance: float


Profiles = Mapping[str, Mapping[str, Floats]]
"""By training set and film (a patient's; empty: of all others), (n, features)."""


def training_profiles(
    bundle: Bundle, root: Path, fields: int = FIELDS, progress: Progress | None = None
) -> Profiles:
    """Measure profiles of the sets that a bundle's classifier was trained on.

    Sets that yield fewer than `MIN_FIELDS` profiles are left out: single cells without red cells
    around them, say.

    Args:
        bundle: a whole bundle.
        root: where the data paths of its configuration start.
        fields: of each set, evenly spread; of a set with many films at least `MIN_FILM_FIELDS` of
            each, of `MOST_FILMS` of them. The fields of a film are analysed together, as a user
            would do.
        progress: follows the work.
    """
    followed = progress or NoProgress()
    by_site: dict[str, dict[Path, str]] = {}
    for item in open_sources(config_of(bundle, "classifier").data.train, root):
        by_site.setdefault(item.dataset.name, {})[item.field.path] = item.field.patient or ""
    found: dict[str, dict[str, Floats]] = {}
    with Model(bundle) as model:
        for site, patients in by_site.items():
            films = by_film([(patient, path) for path, patient in patients.items()])
            names = list(films)
            chosen = [names[i] for i in evenly_spread(len(names), MOST_FILMS).tolist()]
            each = max(fields // len(chosen), MIN_FILM_FIELDS)
            own = {
                film: [
                    row
                    for outcome in _analysed(films[film], each, model, followed, site)
                    if (row := _profile(outcome, bundle)) is not None
                ]
                for film in chosen
            }
            if sum(map(len, own.values())) >= MIN_FIELDS:
                found[site] = {film: np.array(rows) for film, rows in own.items() if rows}
    return found


def _analysed(
    paths: list[Path], most: int, model: Model, progress: Progress, site: str
) -> Iterator[FieldResult]:
    some = [paths[i] for i in evenly_spread(len(paths), most).tolist()]
    sampled = OneStage(progress, SAMPLES)
    with closing(analyze_many(some, model, progress=sampled)) as outcomes:
        for outcome in track(outcomes, progress, f"films of {site}", len(some)):
            if isinstance(outcome, FieldResult):
                yield outcome


def by_film(fields: Sequence[tuple[str, Path]]) -> dict[str, list[Path]]:
    """Return the fields of a set by patient; those of patients with few fields together.

    >>> fields = [("a", Path("1")), ("a", Path("2")), ("b", Path("3")), ("a", Path("4"))]
    >>> {film: len(paths) for film, paths in by_film(fields).items()}
    {'a': 3, '': 1}
    """
    count = Counter(patient for patient, _ in fields)
    films: dict[str, list[Path]] = {}
    for patient, path in fields:
        films.setdefault(patient if count[patient] >= MIN_FILM_FIELDS else "", []).append(path)
    return films


def _profile(result: FieldResult, bundle: Bundle) -> Floats | None:
    """Return the profile of an analysed field, as the analyser measures it."""
    m = bundle.manifest
    if m.roles.ruler is None or not result.countable or result.view.sharpness is None:
        return None
    boxes = {
        role: np.array(
            [
                c.box
                for c in result.cells
                if c.object_type == role and c.confidence >= m.detector.vote_thresholds[role]
            ]
        ).reshape(-1, 4)
        for role in (m.roles.ruler, m.roles.classified)
    }
    view = CanonicalView.from_record(result.view)
    image = open_image(result.path)
    red, nucleated = boxes[m.roles.ruler], boxes[m.roles.classified]
    return film_profile(image, view, red, nucleated, result.view.sharpness)


def film_statistics(profiles: Profiles, class_confidence: float) -> FilmStatistics:
    """Return means by film, the spread within films, and the limit that their fields respect.

    Args:
        profiles: see `training_profiles`.
        class_confidence: of the classifier on films like its training films.

    Raises:
        ConfigError: if no site has profiles.
    """
    if not profiles:
        raise ConfigError(
            "film statistics: no training set shows red cells and nucleated cells in "
            f"{MIN_FIELDS} fields; they cannot be measured"
        )
    films = [
        (_name(site, film), rows) for site, own in profiles.items() for film, rows in own.items()
    ]
    means = {name: rows.mean(axis=0) for name, rows in films}
    within = np.concatenate([rows - means[name] for name, rows in films])
    spread = np.maximum(within.std(axis=0), LEAST_SPREAD)
    draft = FilmStatistics(
        features=FEATURES,
        sites={name: _numbers(mean) for name, mean in means.items()},
        spread=_numbers(spread),
        limit=1.0,
        class_confidence=round(1 - (1 - class_confidence) / CAUTION, 4),
    )
    distances = [draft.nearest(row.tolist())[1] for _, rows in films for row in rows]
    limit = round(float(np.quantile(distances, ACCEPTED)), 4)
    return draft.model_copy(update={"limit": max(limit, LEAST_SPREAD)})


def _name(site: str, film: str) -> str:
    return f"{site}, {film}" if film else site


def _numbers(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(v), 5) for v in values)


def left_out(profiles: Profiles, films: FilmStatistics) -> list[LeftOut]:
    """Hold each site against the others, as if it were new to the model."""
    rows = []
    for name, by_patient in profiles.items():
        own_films = {_name(name, film) for film in by_patient}
        others = {k: v for k, v in films.sites.items() if k not in own_films}
        found = np.concatenate(list(by_patient.values()))
        own = [films.nearest(row.tolist())[1] > films.limit for row in found]
        if not others:
            continue
        without = films.model_copy(update={"sites": others})
        distance = np.array([without.nearest(row.tolist())[1] for row in found])
        far = float((distance > films.limit).mean())
        median = round(float(np.median(distance)), 2)
        rows.append(LeftOut(name, len(found), far, float(np.mean(own)), median))
    return rows


def add_film_statistics(
    folder: Path, root: Path, fields: int = FIELDS, progress: Progress | None = None
) -> Sequence[LeftOut]:
    """Measure a bundle's training films and write the result into its manifest.

    Args:
        folder: of the bundle; changed in place.
        root: where the data paths of its configuration start.
        fields: of each training set.
        progress: follows the work.

    Returns:
        each training set held against the others.

    Raises:
        ConfigError: if the training data are missing or show no film.
    """
    bundle = load_bundle(folder)
    profiles = training_profiles(bundle, root, fields, progress)
    films = film_statistics(profiles, bundle.manifest.classifier.class_confidence)
    bundle.manifest.with_films(films).write(folder)
    return left_out(profiles, films)
