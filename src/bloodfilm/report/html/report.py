"""Write `report.html`: a self-contained HTML report for review."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bloodfilm.core.files import atomic_write
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import AnalysisRun
from bloodfilm.core.results.tables import describe_columns
from bloodfilm.inference.fusion import ScoreFusion
from bloodfilm.report.html import formatting, sections
from bloodfilm.report.html.gallery import crops_of, gallery, script_json, wanted_cells
from bloodfilm.report.html.images import BUDGET, Embedder
from bloodfilm.report.html.palette import legend
from bloodfilm.report.html.sections import FieldSection, ReportMetadata
from bloodfilm.report.html.static_pages import TEMPLATES, render


def write_report(
    run: AnalysisRun,
    out_dir: str | Path,
    *,
    when: datetime | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Path:
    """Write `out_dir/report.html` and return its path.

    Args:
        run: the analysis. Images are opened again to be embedded; a missing one is reported as
            such.
        out_dir: the folder; made if missing.
        when: the time to print; now if left out. Everything else follows from the run alone.
        budget: maximum number of characters of embedded images.
        progress: follows the fields whose images are embedded.
    """
    facts = ReportMetadata(run)
    embedder = Embedder(len(facts.fields), len(facts.cells), run.model.crop_um, budget)
    wanted = wanted_cells(facts, embedder.room_for_cells)
    chosen_of = zip(run.fields, wanted, strict=True)
    followed = track(chosen_of, progress or NoProgress(), "report", len(facts.fields))
    fields = [
        sections.field_section(facts, number, result, embedder.take(result, chosen))
        for number, (result, chosen) in enumerate(followed, 1)
    ]
    text = _render(_context(facts, fields, embedder, when or datetime.now().astimezone()))
    path = Path(out_dir) / "report.html"
    with atomic_write(path) as file:
        file.write(text)
    return path


def _context(
    facts: ReportMetadata, fields: list[FieldSection], embedder: Embedder, when: datetime
) -> dict[str, Any]:
    run, model, counted = facts.run, facts.run.model, facts.differential
    crops = crops_of([f.picture.crops for f in fields])
    labels = {cell.label for cell in facts.cells}
    titles = {a.name: a.title for a in model.schema.attributes}
    return {
        "when": formatting.date_and_time(when),
        "when_iso": when.isoformat(timespec="seconds"),
        "version": run.version,
        "model": model,
        "settings": sections.flat(run.settings),
        "metrics": sections.flat(model.metrics),
        "counted": counted,
        "bars": sections.bars(facts),
        "axis": formatting.percent(sections.axis(counted.rows)),
        "axis_half": formatting.percent(sections.axis(counted.rows) / 2),
        "attribute_table": sections.attribute_table(facts),
        "trained": model.trained_attributes,
        "untrained_classes": formatting.untrained_classes(
            model.untrained_classes, model.taxonomy.blasts
        ),
        "untrained_attributes": formatting.untrained_attributes(
            [titles[n] for n in model.untrained_attributes]
        ),
        "scale": sections.scale_summary(facts),
        "issues": sections.issue_counts(facts),
        "failures": [(formatting.clean(f.path), formatting.clean(f.reason)) for f in run.failures],
        "fields": fields,
        "folder": facts.folder,
        "pictured": sum(f.picture.picture is not None for f in fields),
        "issue_fields": [f for f in fields if f.issues],
        "crops_left_out": counted.nucleated - len(crops),
        "window_um": embedder.window_um,
        "least_contrast": ScoreFusion().contrast,
        "legend": legend(labels, model.taxonomy),
        "columns": describe_columns(model.schema),
        "gallery_json": script_json(gallery(facts)),
        "crops_json": script_json(crops),
    }


def _render(context: Mapping[str, Any]) -> str:
    from markupsafe import Markup

    script = "\n" + (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = {**context, "script": Markup(script), "script_hash": digest}
    return render("report.html", page, unescaped="_json")
