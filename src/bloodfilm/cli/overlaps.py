"""`bloodfilm data overlaps`: which fields show the same glass, and which boxes are one cell."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bloodfilm.duplicates.identity import CellIdentities


def overlaps(
    root: Annotated[Path, typer.Argument(help="A data set: a file or a folder.")],
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write pairs and physical cells to this file.")
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            help="Also write the set, each cell named by the physical cell it is: JSON, or an "
            "index if it ends in .parquet."
        ),
    ] = None,
    no_subsets: Annotated[
        bool,
        typer.Option("--no-subsets", help="Do not register photographs of one field by subset."),
    ] = False,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Compare all fields at all shifts, however many.")
    ] = False,
    format: Annotated[str | None, typer.Option(help="Its format, if not recognised.")] = None,
) -> None:
    """List fields that show the same glass (shifted, turned, identical), and give cells one name.

    Fields are found by content, not by name. Photographs of one patient's field in several
    subsets are registered, and refused where they cannot be put together. A set written with
    --dataset keeps boxes of one cell together when it is split.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show, show_lines
    from bloodfilm.core.text import plural
    from bloodfilm.workflows.overlaps import OverlapsJob, find_overlaps

    job = OverlapsJob(
        root=root,
        json=as_json,
        dataset=dataset,
        subsets=not no_subsets,
        thorough=thorough,
        format=format,
    )
    with TerminalProgress() as progress:
        found = find_overlaps(job, progress)
    show_lines(_lines(found))
    if as_json is not None:
        show(f"wrote {as_json}")
    if dataset is not None:
        show(f"wrote {dataset}: {plural(len(found.table.rows), 'field')}")


def _lines(found: "CellIdentities") -> list[str]:
    names = [Path(row.path).name for row in found.table.rows]
    lines = []
    for pair in sorted(found.overlaps, key=lambda o: (not o.identical, -o.share)):
        shift = f"shift ({pair.shift[0]:+.0f}, {pair.shift[1]:+.0f})"
        how = "identical" if pair.identical else f"{pair.share:4.0%} in common, {shift}"
        lines.append(
            f"{names[pair.first]} = {names[pair.second]}: {how}"
            f"{', turned by 180 degrees' if pair.turned else ''}, correlation {pair.ncc:.3f}, "
            f"cells marked in both: {found.shared(pair.first, pair.second)}"
        )
    for one in found.reacquired:
        how = f"aligned ({one.confidence:.2f})" if one.aligned else f"refused: {one.reason}"
        lines.append(
            f"{names[one.first]} ~ {names[one.second]}: {how}, "
            f"cells marked in both: {found.shared(one.first, one.second)}"
        )
    boxes, groups = len(found.cells), found.groups()
    cells = boxes - sum(len(g) - 1 for g in groups)
    aligned = sum(r.aligned for r in found.reacquired)
    lines.append(
        f"{len(found.overlaps)} pairs of fields show common glass, "
        f"{sum(o.identical for o in found.overlaps)} of them identical; "
        f"{aligned} of {len(found.reacquired)} pairs of photographs of one field aligned"
    )
    lines.append(f"{boxes} boxes are {cells} physical cells; {len(groups)} have several boxes")
    return [*lines, *(f"{note.file}: {note.message}" for note in found.notes)]
