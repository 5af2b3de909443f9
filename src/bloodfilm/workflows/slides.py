"""Analyse a slide into a folder: tile by tile, so that it can be stopped at any moment.

While a slide is analysed, `tiles.part.jsonl` keeps its plan and the result of every tile. At the
end the folder holds `overview.jpg`, `zone.png`, `zone.geojson` and `cells.geojson`, in pixels of
level 0 as QuPath reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simplejpeg

from bloodfilm.core.attributes import Schema
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.files import write_bytes, write_json
from bloodfilm.core.polygons import Region
from bloodfilm.core.progress import Progress, counter
from bloodfilm.core.results import FieldFailure, FieldOutcome, FieldResult
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.formats.qupath.regions import read_regions
from bloodfilm.formats.qupath.write import write as write_qupath
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources.open_slide import open_slide
from bloodfilm.imaging.sources.slide import SlideSource
from bloodfilm.imaging.zone import zone_picture
from bloodfilm.inference.model import Model
from bloodfilm.inference.results_log import ResultsLog
from bloodfilm.inference.runner import FieldHook, default_workers, one_opencv_thread
from bloodfilm.inference.slides import (
    SlidePlan,
    SlideSelection,
    analyze_tiles,
    combined,
    plan_slide,
)

SLIDES = "slides"
TILES = "tiles.part.jsonl"
OVERVIEW, ZONE_PICTURE, ZONE, CELLS = "overview.jpg", "zone.png", "zone.geojson", "cells.geojson"
OVERVIEW_SIDE = 1400
_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class SlideJob:
    """A slide to analyse.

    Attributes:
        path: of the slide.
        folder: for what is written about it; made if missing.
        selection: which part to analyse.
        prior: what the user says of its pixel size.
        workers: tiles at work at a time; `None` for one per core.
        record: what bears on the results, as plain data: a run that is resumed must be the same.
    """

    path: Path
    folder: Path
    selection: SlideSelection
    prior: ScalePrior
    workers: int | None
    record: Mapping[str, Any]


def region_of(text: str | None) -> Region | None:
    """Return the region that a user names: `all`, `x,y,width,height`, or a GeoJSON file.

    Raises:
        ConfigError: if it is none of these.
        DataError: if the file cannot be read or holds no shape.

    >>> region_of("10,20,300,200").polygons
    (((10.0, 20.0), (310.0, 20.0), (310.0, 220.0), (10.0, 220.0)),)
    """
    if text is None:
        return None
    if text == "all":
        return Region.everything()
    parts = text.split(",")
    if len(parts) == 4:
        try:
            x, y, w, h = (float(part) for part in parts)
        except ValueError:
            pass
        else:
            if not (w > 0 and h > 0) or not all(abs(v) < 1e9 for v in (x, y, w, h)):
                raise ConfigError(f"--region {text}: width and height must be positive")
            return Region.rect(x, y, w, h)
    path = Path(text)
    if not path.exists():
        raise ConfigError(
            f"--region {text}: no such file; give all, x,y,width,height in pixels, or a GeoJSON "
            "file"
        )
    return read_regions(path)


def slide_folders(out: Path, slides: Sequence[Path]) -> dict[Path, Path]:
    """Return the folder in `out` for each slide, named by its file."""
    found: dict[Path, Path] = {}
    used: set[str] = set()
    for path in slides:
        stem = path.stem if path.suffix else path.name
        name, number = stem, 1
        while name.lower() in used:
            number += 1
            name = f"{stem}-{number}"
        used.add(name.lower())
        found[path] = out / SLIDES / name
    return found


def run_slide(
    job: SlideJob, model: Model, progress: Progress, on_field: FieldHook | None = None
) -> FieldOutcome:
    """Analyse a slide, or go on where a run was stopped; write its maps and cells.

    Args:
        job: the slide, and where to write.
        model: the model.
        progress: follows the work.
        on_field: makes what else is made of the slide and its result, as the report's pictures.

    Returns:
        the result, or a failure that says why there is none.

    Raises:
        OutputError: if the folder cannot be written, or holds the tiles of another run.
        CancelledError: if the run was stopped; what is done is kept.
    """
    try:
        source = open_slide(job.path)
    except (DataError, ImportError, OSError, MemoryError) as error:
        return FieldFailure.from_error(str(job.path), error)
    try:
        result = _analyze(job, source, model, progress)
        if on_field is not None:
            on_field(source, result)
        return result
    except (DataError, MemoryError) as error:
        return FieldFailure.from_error(str(job.path), error)
    finally:
        source.close()


def _analyze(job: SlideJob, source: SlideSource, model: Model, progress: Progress) -> FieldResult:
    job.folder.mkdir(parents=True, exist_ok=True)
    place = job.folder / TILES
    log, plan = _resumed(job, source) if place.exists() else (None, None)
    if log is None or plan is None:
        plan = _planned(job, source, model, progress)
        run = {**job.record, "sha256": source.identity, "plan": plan.to_json()}
        log = ResultsLog(place, run)
        # What is resumed has been through JSON; so must be what is not.
        plan = SlidePlan.from_json(plan.to_json(), source.size)
    with log:
        _write_maps(job.folder, source, plan)
        _run_tiles(job, source, model, plan, log, progress)
        outcomes = (
            log.failures[tile.number] if tile.number in log.failures else log.field(tile.number)
            for tile in plan.tiles
        )
        result = combined(source, plan, outcomes, model.classified_type)
    _write_cells(job.folder / CELLS, result, model.taxonomy, model.schema)
    return result


def finish_slide(folder: Path) -> None:
    """Remove the tiles of a slide whose result is kept elsewhere."""
    (folder / TILES).unlink(missing_ok=True)


def _resumed(job: SlideJob, source: SlideSource) -> tuple[ResultsLog, SlidePlan]:
    log = ResultsLog(job.folder / TILES, {}, resume=True)
    try:
        wanted = {**job.record, "sha256": source.identity}
        for name, value in wanted.items():
            if log.run.get(name) != value:
                raise OutputError(
                    f"{job.folder / TILES}: holds tiles of another run: {name} differs",
                    ["other-output", "overwrite"],
                )
        return log, SlidePlan.from_json(log.run["plan"], source.size)
    except BaseException:
        log.close()
        raise


def _planned(job: SlideJob, source: SlideSource, model: Model, progress: Progress) -> SlidePlan:
    from concurrent.futures import ThreadPoolExecutor

    workers = job.workers or default_workers()
    with one_opencv_thread(), ThreadPoolExecutor(workers, "slide") as executor:
        return plan_slide(
            source,
            model.analyzer,
            job.selection,
            prior=job.prior,
            progress=progress,
            map_=executor.map,
        )


def _run_tiles(
    job: SlideJob,
    source: SlideSource,
    model: Model,
    plan: SlidePlan,
    log: ResultsLog,
    progress: Progress,
) -> None:
    todo = [tile for tile in plan.tiles if not log.has(tile.number)]
    done = len(plan.tiles) - len(todo)
    count = counter(progress, f"tiles of {source.name}", len(plan.tiles))
    count(done)
    outcomes = analyze_tiles(source, model.analyzer, plan, todo, workers=job.workers)
    try:
        for number, (tile, outcome) in enumerate(zip(todo, outcomes, strict=True), done + 1):
            log.append(tile.number, outcome)
            count(number)
    finally:
        outcomes.close()


def _write_maps(folder: Path, source: SlideSource, plan: SlidePlan) -> None:
    import cv2

    overview = source.thumbnail(OVERVIEW_SIDE)
    data = simplejpeg.encode_jpeg(overview, quality=_QUALITY, colorspace="RGB")
    write_bytes(folder / OVERVIEW, bytes(data), sync=False)
    _, png = cv2.imencode(".png", zone_picture(overview, plan.zone)[..., ::-1])
    write_bytes(folder / ZONE_PICTURE, png.tobytes(), sync=False)
    write_json(folder / ZONE, plan.zone.to_geojson(), indent=None)


def _write_cells(path: Path, result: FieldResult, taxonomy: Taxonomy, schema: Schema) -> None:
    """Write the cells as QuPath's detections."""
    found = Dataset(
        "cells", (result.to_field(Region.everything()),), taxonomy=taxonomy, schema=schema
    )
    path.unlink(missing_ok=True)
    write_qupath(found, path)
