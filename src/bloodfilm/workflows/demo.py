"""Render example fields and analyse them."""

from pathlib import Path

from bloodfilm.core.progress import Progress
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.workflows.analyze import AnalysisJob, AnalysisSummary, analyze, check_existing
from bloodfilm.workflows.outputs import hold_folder
from bloodfilm.workflows.render import render_demo

FIELDS = "fields"


def run_demo(
    out: Path,
    bundle: Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> AnalysisSummary:
    """Render example fields into `out/fields` and analyse them into `out`.

    Args:
        out: the folder for everything.
        bundle: folder of the model; `None` for the shipped one.
        overwrite: replace the results of an earlier run.
        progress: follows rendering and analysis.
    """
    # What cannot work is refused before anything is drawn.
    load_bundle(bundle) if bundle else default_bundle()
    with hold_folder(out, "demo"):
        check_existing(out, "overwrite" if overwrite else "refuse")
        render_demo(out / FIELDS, progress)
    return analyze(AnalysisJob(paths=[out / FIELDS], out=out, bundle=bundle), progress)
