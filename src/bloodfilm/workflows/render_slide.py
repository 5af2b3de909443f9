"""Render a synthetic slide with its truth."""

from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.field import Field
from bloodfilm.core.files import write_json
from bloodfilm.core.progress import Progress
from bloodfilm.formats import save_dataset
from bloodfilm.synthetic.slides import AREAS, SlideFilm, SlideSpec, write_slide
from bloodfilm.workflows.render import new_folder

NAMES = {"tiff": "slide.tif", "svs": "slide.svs", "ome": "slide.ome.tif"}
TRUTH, AREAS_FILE = "dataset.json", "areas.geojson"


@dataclass(frozen=True, kw_only=True)
class SlideRenderJob:
    """A slide to render.

    Attributes:
        out: a new folder.
        spec: of the slide.
        layout: how its levels are stored, a name in `synthetic.slides.LAYOUTS`.
    """

    out: Path
    spec: SlideSpec
    layout: str = "tiff"


def slide_size(text: str) -> tuple[int, int]:
    """Return width and height of `WIDTHxHEIGHT`, px; `ConfigError` if it is not one.

    >>> slide_size("20000x15000")
    (20000, 15000)
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and max(len(width), len(height)) < 7):
        raise ConfigError(f"--slide {text}: give its size in pixels, e.g. 20000x15000")
    return int(width), int(height)


def render_slide(job: SlideRenderJob, progress: Progress | None = None) -> Dataset:
    """Render a slide into a new folder; write its white cells and the areas of its film beside it.

    Returns:
        the white cells as a data set of one field, also written as `dataset.json`.
    """
    film = SlideFilm(job.spec)
    with new_folder(job.out):
        path = job.out / NAMES[job.layout]
        write_slide(film, path, job.layout, progress)
        width, height = job.spec.width, job.spec.height
        cells = tuple(w.cell for w in film.white_cells(0, 0, width, height))
        field = Field(path, width, height, cells)
        made = Dataset("rendered slide", (field,), licence="CC0-1.0", source=job.out)
        save_dataset(made, job.out / TRUTH, "bloodfilm")
        write_json(job.out / AREAS_FILE, _areas(film))
    return made


def _areas(film: SlideFilm) -> dict[str, object]:
    """Return the areas of the film and its pen marks as QuPath's annotations."""
    um = film.spec.um_per_px
    named = [
        (name, film.layout.rect_of(number))
        for number, name in enumerate(AREAS)
        if name not in ("glass", "pen")
    ]
    named += [("pen", mark) for mark in film.layout.pen_marks]
    features = []
    for name, rect in named:
        x, y, w, h = (v / um for v in rect)
        ring = [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "annotation", "classification": {"name": name}},
            }
        )
    return {"type": "FeatureCollection", "features": features}
