"""Write the report of results that are there, again or with more in it."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core.errors import BloodfilmError, ConfigError
from bloodfilm.core.issue_codes import NO_OCCLUSION_MAP, issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import AnalysisRun, CellResult
from bloodfilm.imaging.sources import open_source, read_whole
from bloodfilm.imaging.sources.slide import SlideSource
from bloodfilm.inference.model import Model, load_model
from bloodfilm.report.html.report import write_report
from bloodfilm.workflows.outputs import hold_folder


@dataclass(frozen=True, kw_only=True)
class ReportJob:
    """Whose report to write, and what to put into it.

    Attributes:
        results: `result.json`, or its folder.
        out: the folder for the report; that of the results if left out.
        single_file: whether the page holds its pictures.
        explain: for how many cells, the least certain ones, occlusion maps are computed.
        bundle: folder of the model that made the results, for the maps; `None` for the shipped one.
    """

    results: Path
    out: Path | None = None
    single_file: bool = False
    explain: int = 0
    bundle: Path | None = None


def report(job: ReportJob, progress: Progress | None = None) -> Path:
    """Write a report and return the path of its page.

    Raises:
        DataError: if there are no results.
        ConfigError: if maps are wanted and the model is not the one that made the results.
    """
    progress = progress or NoProgress()
    run = AnalysisRun.read(job.results)
    near = job.results if job.results.is_dir() else job.results.parent
    out = job.out or near
    maps: dict[str, list[int]] = {}
    with hold_folder(out, "report"):
        if job.explain:
            with load_model(job.bundle) as model:
                maps = explain(run, model, job.explain, progress)
        return write_report(run, out, single_file=job.single_file, maps=maps, progress=progress)


def explain(run: AnalysisRun, model: Model, most: int, progress: Progress) -> dict[str, list[int]]:
    """Return occlusion maps of the least certain cells, by cell id.

    Cells with a warning come first, then those whose name is no leaf, then the least probable. A
    field that cannot be read again is reported, and its cells have no map.

    Raises:
        ConfigError: if the model is not the one that made the results.
    """
    made_by, given = run.model.identity.get("sha256"), model.bundle.identity().get("sha256")
    if made_by != given:
        raise ConfigError(
            f"the results were made by bundle {run.model.name} ({str(made_by)[:12]}), the maps "
            f"would be of {str(given)[:12]}; name the bundle that made them with --bundle"
        )
    wanted: dict[int, list[CellResult]] = defaultdict(list)
    for _, number, _, cell in sorted(_by_certainty(run), key=lambda item: item[:3])[:most]:
        wanted[number].append(cell)
    maps: dict[str, list[int]] = {}
    for number in track(sorted(wanted), progress, "occlusion maps", len(wanted)):
        result = run.fields[number]
        try:
            source = open_source(result.path)
        except (BloodfilmError, OSError) as error:
            progress.report(_no_map(result.path, f"it cannot be read again ({error})"))
            continue
        try:
            if isinstance(source, SlideSource):
                progress.report(_no_map(result.path, "it is a slide"))
            elif source.identity == result.image.sha256:
                maps |= model.occlusion_maps(read_whole(source), result, wanted[number])
        finally:
            source.close()
    return maps


def _no_map(path: str, why: str) -> Issue:
    return issue(NO_OCCLUSION_MAP, f"{path}: no occlusion maps, as {why}", path=path)


def _by_certainty(run: AnalysisRun) -> list[tuple[tuple[bool, bool, float], int, int, CellResult]]:
    leaves = set(run.model.taxonomy.leaves)
    found = []
    for number, result in enumerate(run):
        for place, cell in enumerate(result.cells):
            if cell.object_type == run.model.classified and cell.probabilities:
                calm = not any(i.severity != "info" for i in cell.issues)
                certainty = calm, cell.label in leaves, round(cell.label_confidence, 4)
                found.append((certainty, number, place, cell))
    return found
