"""Stain and optics of a bundle's training films, measured by the bundle itself."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodfilm.core.arrays import Floats
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import FieldResult
from bloodfilm.export.recovered import config_of
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.film_profile import FEATURES, film_profile
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.manifest import FilmStatistics
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import analyze_many
from bloodfilm.training.data.sources import open_sources

FIELDS = 40
"""Fields of a training set that are measured."""
MIN_FIELDS = 5
"""Fields of a set without which it is left out."""
ACCEPTED = 0.975
"""Share of the training fields that the limit accepts."""
LEAST_SPREAD = 0.01
CAUTION = 2.0
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


def training_profiles(
    bundle: Bundle, root: Path, fields: int = FIELDS, progress: Progress | None = None
) -> dict[str, Floats]:
    """Measure profiles (n, features) of the sets that a bundle's classifier was trained on.

    Sets that yield fewer than `MIN_FIELDS` profiles are left out: single cells without red cells
    around them, say.

    Args:
        bundle: a whole bundle.
        root: where the data paths of its configuration start.
        fields: of each set, evenly spread.
        progress: follows the work.
    """
    followed = progress or NoProgress()
    by_site: dict[str, list[Path]] = {}
    for item in open_sources(config_of(bundle, "classifier").data.train, root):
        by_site.setdefault(item.dataset.name, []).append(item.field.path)
    found = {}
    with Model(bundle) as model:
        for site, paths in by_site.items():
            every = list(dict.fromkeys(paths))
            places = np.unique(np.linspace(0, len(every) - 1, min(fields, len(every))).round())
            chosen = [every[int(i)] for i in places]
            rows = []
            with closing(analyze_many(chosen, model)) as outcomes:
                for outcome in track(outcomes, followed, f"films of {site}", len(chosen)):
                    row = _profile(outcome, bundle) if isinstance(outcome, FieldResult) else None
                    if row is not None:
                        rows.append(row)
            if len(rows) >= MIN_FIELDS:
                found[site] = np.array(rows)
    return found


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


def film_statistics(profiles: Mapping[str, Floats], class_confidence: float) -> FilmStatistics:
    """Return means by site, the spread within sites, and the limit that fields of sites respect.

    Args:
        profiles: by site, see `training_profiles`.
        class_confidence: of the classifier on films like its training films.

    Raises:
        ConfigError: if no site has profiles.
    """
    if not profiles:
        raise ConfigError(
            "film statistics: no training set shows red cells and nucleated cells in "
            f"{MIN_FIELDS} fields; they cannot be measured"
        )
    sites = {name: rows.mean(axis=0) for name, rows in profiles.items()}
    within = np.concatenate([rows - sites[name] for name, rows in profiles.items()])
    spread = np.maximum(within.std(axis=0), LEAST_SPREAD)
    draft = FilmStatistics(
        features=FEATURES,
        sites={name: _numbers(mean) for name, mean in sites.items()},
        spread=_numbers(spread),
        limit=1.0,
        class_confidence=round(1 - (1 - class_confidence) / CAUTION, 4),
    )
    distances = [draft.nearest(row.tolist())[1] for rows in profiles.values() for row in rows]
    limit = round(float(np.quantile(distances, ACCEPTED)), 4)
    return draft.model_copy(update={"limit": max(limit, LEAST_SPREAD)})


def _numbers(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(v), 5) for v in values)


def left_out(profiles: Mapping[str, Floats], films: FilmStatistics) -> list[LeftOut]:
    """Hold each site against the others, as if it were new to the model."""
    rows = []
    for name, found in profiles.items():
        others = {k: v for k, v in films.sites.items() if k != name}
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
