"""Write `report.html` and the pictures beside it, or both in a single file."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bloodfilm.core import issue_codes
from bloodfilm.core.files import atomic_write
from bloodfilm.core.issue_codes import NO_PICTURE, issue
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import AnalysisRun, CaseResult
from bloodfilm.core.results.case import file_stems
from bloodfilm.core.results.tables import CELLS_TABLE, describe_columns
from bloodfilm.core.text import printable
from bloodfilm.imaging.discovery import mark_drawings
from bloodfilm.inference.fusion import RED_CELL_CONTRAST
from bloodfilm.report.html import formatting, summary
from bloodfilm.report.html.content import ReportCell, ReportContent, collect
from bloodfilm.report.html.gallery import gallery, script_json
from bloodfilm.report.html.palette import legend
from bloodfilm.report.html.static_pages import render, script_text
from bloodfilm.report.pictures import FIELD_PICTURE, PictureStore, cell_picture, remove_pictures

REPORT, PICTURES, CASES_FOLDER = "report.html", "report_files", "cases"
MOST_ON_SHEET = 400
"""Cells on the printed contact sheet."""
SHEET_ROW = 12
"""Cells in a row of it."""
SINGLE_FILE_BYTES = 60_000_000
"""Pictures in a single file; what no longer fits is left out, and the page says so."""


def picture_store(run_folder: Path, classified: str, window_um: float, files: int) -> PictureStore:
    """Return the store of a report's pictures in a folder of results."""
    return PictureStore(run_folder / PICTURES, classified, window_um, files)


def write_report(
    run: AnalysisRun,
    out_dir: str | Path,
    *,
    when: datetime | None = None,
    single_file: bool = False,
    maps: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write `out_dir/report.html` and return its path.

    With several cases it lists them, and each has a page of its own in `out_dir/cases`. Pictures
    lie in `out_dir/report_files`; the ones that an analysis has put there are used, others are made
    from the images, which are opened again; a missing one is reported as such.

    Args:
        run: the analysis.
        out_dir: the folder; made if missing.
        when: the time to print; now if left out. Everything else follows from the run alone.
        single_file: put the pictures into each page, which then needs no other file.
        maps: occlusion maps by cell id; see `bloodfilm.inference.occlusion`.
        progress: follows the fields.
    """
    writer = _Writer(run, Path(out_dir), when or datetime.now().astimezone(), single_file)
    return writer.write(maps or {}, progress or NoProgress())


class _Writer:
    """Writes the pages of one run."""

    def __init__(self, run: AnalysisRun, out: Path, when: datetime, single_file: bool) -> None:
        self._run, self._out, self._when, self._single_file = run, out, when, single_file
        files = len(run.fields) + len(run.failures)
        self._store = picture_store(out, run.model.classified, run.model.crop_um, files)
        self._used: set[str] = set()
        # A report may be written into a folder of its own, without the tables of the analysis.
        self._beside = (out / CELLS_TABLE).is_file()

    def write(self, maps: Mapping[str, Sequence[int]], progress: Progress) -> Path:
        """Write all pages; pictures that none of them shows are removed."""
        path, cases = self._out / REPORT, self._run.cases
        if len(cases) < 2:
            self._page(path, cases[0] if cases else None, maps, progress)
        else:
            stems = file_stems(case.name for case in cases)
            lines = []
            for case, stem in zip(cases, stems, strict=True):
                place = self._out / CASES_FOLDER / f"{stem}.html"
                page = self._page(place, case, maps, progress)
                lines.append((case, f"{CASES_FOLDER}/{stem}.html", page))
            self._index(path, lines)
        remove_pictures(self._store.folder, but=() if self._single_file else self._used)
        if self._store.folder.is_dir():
            mark_drawings(self._out, [PICTURES])
        return path

    def _page(
        self,
        path: Path,
        case: CaseResult | None,
        maps: Mapping[str, Sequence[int]],
        progress: Progress,
    ) -> summary.Summary:
        content = collect(self._run, self._store, progress, case)
        self._used.update(field.picture.folder for field in content.fields)
        unseen = [f.picture.missing for f in content.fields if f.picture.missing]
        if unseen:
            message = (
                f"{path}: shows no picture of {len(unseen)} of {len(content.fields)} fields; the "
                f"first: {unseen[0]}"
            )
            progress.report(issue(NO_PICTURE, message, fields=len(unseen), page=str(path)))
        embedded = _embedded(content, self._store, progress) if self._single_file else None
        # As addresses have it, from the page to the folder of the results.
        up = "" if path.parent == self._out else "../"
        pictures = "" if self._single_file else f"{up}{PICTURES}"
        page = summary.Summary(content)
        context = {
            **_context(page, self._when, embedded),
            "up": up,
            "pictures": pictures,
            "single_file": self._single_file,
            "several": len(self._run.cases) > 1,
            "beside": self._beside,
            "gallery_json": script_json(
                gallery(content, flags=page.flags, maps=maps, pictures=pictures)
            ),
        }
        self._save(path, _render(context))
        return page

    def _index(self, path: Path, lines: Sequence[tuple[CaseResult, str, summary.Summary]]) -> None:
        context = {
            "run": self._run,
            "model": self._run.model,
            "version": self._run.version,
            "when": formatting.date_and_time(self._when),
            "when_iso": self._when.isoformat(timespec="seconds"),
            "lines": lines,
            "beside": self._beside,
            "failures": [(printable(f.path), printable(f.reason)) for f in self._run.failures],
        }
        self._save(path, render("cases.html", context, styles=("base.css", "report.css")))

    def _save(self, path: Path, text: str) -> None:
        with atomic_write(path) as file:
            file.write(text)


def _embedded(
    content: ReportContent, store: PictureStore, progress: Progress
) -> tuple[dict[str, str], int]:
    """Return pictures as base64 by path, within the limit, and how many are left out."""
    found: dict[str, str] = {}
    room, left_out = SINGLE_FILE_BYTES, 0
    wanted = [*_cell_paths(content), *((f.picture, FIELD_PICTURE) for f in content.fields)]
    for picture, name in track(wanted, progress, "embedding pictures", len(wanted)):
        data = store.read(picture, name)
        if data is None:
            continue
        text = base64.b64encode(data).decode("ascii")
        if len(text) > room:
            left_out += 1
            continue
        room -= len(text)
        found[f"{picture.folder}/{name}"] = text
    return found, left_out


def _cell_paths(content: ReportContent) -> Iterator[tuple[Any, str]]:
    """Yield the pictures of cells, uncertain ones first."""

    def calm(cell: ReportCell) -> bool:
        return not (cell.codes or content.is_undecided(cell.label))

    for cell in sorted(content.cells, key=calm):
        yield content.fields[cell.field - 1].picture, cell_picture(cell.place)


def _context(
    page: summary.Summary, when: datetime, pictures: tuple[dict[str, str], int] | None
) -> dict[str, Any]:
    content = page.content
    run, model = content.run, content.model
    titles = {a.name: a.title for a in model.schema.attributes}
    trained = [(a, first) for a, first in content.attributes if a in model.trained_attributes]
    first = [a for a, is_first in trained if is_first]
    rest = [a for a, is_first in trained if not is_first]
    return {
        "when": formatting.date_and_time(when),
        "when_iso": when.isoformat(timespec="seconds"),
        "version": run.version,
        "subject": _subject(content),
        "model": model,
        "settings": summary.flat(run.settings),
        "metrics": summary.flat(model.metrics),
        "content": content,
        "page": page,
        "counted": page.counted,
        "cells_link": summary.cells_link,
        "attribute_tables": [
            (group, summary.attribute_table(content, group)) for group in (first, rest) if group
        ],
        "untrained_classes": formatting.untrained_classes(
            model.untrained_classes, model.taxonomy.blasts
        ),
        "untrained_attributes": formatting.untrained_attributes(
            [titles[n] for n in model.untrained_attributes]
        ),
        "scale": summary.scale_summary(content),
        "failures": [(printable(f.path), printable(f.reason)) for f in content.failures],
        "problem_fields": [f for f in content.fields if f.issues],
        "doubtful_scale": [f for f in content.fields if formatting.describe_view(f.view)[1]],
        "unfamiliar": issue_codes.UNFAMILIAR,
        "folder": printable(content.folder),
        "sheet": contact_sheet(content),
        "without_picture": [f for f in content.fields if f.picture.missing],
        "least_contrast": RED_CELL_CONTRAST,
        "legend": legend({cell.label for cell in content.shown}, model.taxonomy),
        "columns": describe_columns(model.schema),
        "pictures_left_out": 0 if pictures is None else pictures[1],
        "pictures_json": script_json({} if pictures is None else pictures[0]),
    }


def _subject(content: ReportContent) -> str:
    """Return what was analysed: the case, the folder that the images share, or the only image."""
    if content.case is not None:
        return printable(content.case.name)
    if content.folder:
        return printable(content.folder.rstrip("/").rpartition("/")[2] or content.folder)
    if len(content.fields) == 1:
        return printable(content.fields[0].path.rpartition("/")[2])
    return ""


@dataclass(frozen=True)
class SheetGroup:
    """Cells of one name on the contact sheet, undecided ones by their likeliest class.

    Attributes:
        label: their name.
        likely: the likeliest class of undecided cells; `None` for all others, and where fewer
            cells than fill a row share it.
        total: how many there are.
        cells: those that are shown.
    """

    label: str
    likely: str | None
    total: int
    cells: tuple[ReportCell, ...]


def contact_sheet(content: ReportContent, most: int = MOST_ON_SHEET) -> list[SheetGroup]:
    """Return the cells of the printed contact sheet by class.

    Where there are more than `most`, every group gets its share, at least one cell, and within a
    group uncertain cells come first.
    """
    pictured = [c for c in content.shown if not content.fields[c.field - 1].picture.missing]
    shared = Counter((c.label, c.likely) for c in pictured)
    groups: dict[tuple[str, str | None], list[ReportCell]] = {}
    for cell in pictured:
        likely = cell.likely if shared[cell.label, cell.likely] >= SHEET_ROW else None
        groups.setdefault((cell.label, likely), []).append(cell)
    total = sum(map(len, groups.values()))
    order = {label: k for k, label in enumerate(content.in_tree_order({g[0] for g in groups}))}
    sheet = []
    by_size = sorted(groups, key=lambda g: (order[g[0]], g[1] is None, -len(groups[g]), g[1] or ""))
    for label, likely in by_size:
        cells = sorted(
            groups[label, likely],
            key=lambda c: (not c.codes, c.cell.label_confidence, c.field, c.place),
        )
        kept = len(cells) if total <= most else max(1, len(cells) * most // total)
        sheet.append(SheetGroup(label, likely, len(cells), tuple(cells[:kept])))
    return sheet


def _render(context: Mapping[str, Any]) -> str:
    from markupsafe import Markup

    script = script_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = {
        **context,
        "script": Markup(script),
        "script_hash": digest,
        "cell_picture": cell_picture,
    }
    return render("report.html", page, styles=("base.css", "report.css"), unescaped="_json")
