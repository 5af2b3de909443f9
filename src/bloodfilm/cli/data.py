"""`bloodfilm data`: look at an annotated data set, and carry it from one format to another."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bloodfilm.cli.examples import epilog
from bloodfilm.cli.options import CleanSplits

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at annotated data sets, and convert them from one format to another.",
)

READABLE = (
    "bccd, bcisc, bloodfilm, chula, coco, cvat, folder, index, krd, label_studio, lld, lmu, pbc, "
    "pig_wbc, qupath, result, txl, voc, yolo"
)
WRITABLE = (
    "bloodfilm, coco, csv, cvat, folder, index, label_studio, lld, parquet, qupath, voc, yolo"
)
SHOWN_ISSUES = 10
SHOWN_GROUPS = 8

Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at the first fault instead of leaving it out.")
]
LabelKind = Annotated[
    str | None,
    typer.Option(
        help="Which of LLD's labels to read: json, complete, or a folder such as AttriDet."
    ),
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="MAP.toml",
        help="A file that says which classes the set's own names are; see --draft-classes.",
    ),
]


@app.command(epilog=epilog("data info"))
def info(
    path: Annotated[Path, typer.Argument(help="A file or folder of annotations.")],
    format: Annotated[
        str | None, typer.Option(help=f"Its format, if it is not recognised: {READABLE}.")
    ] = None,
    labels: LabelKind = None,
    clean_splits: CleanSplits = False,
    strict: Strict = False,
    classes: ClassMap = None,
    draft_classes: Annotated[
        Path | None,
        typer.Option(
            "--draft-classes",
            metavar="MAP.toml",
            help="Write a map of the class names that are not known, to fill in for --classes.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with every problem.")
    ] = False,
) -> None:
    """Count fields, cells, attributes, splits and patients, and list what is wrong."""
    from bloodfilm.cli.terminal import show_report
    from bloodfilm.workflows.convert import ReadSettings, summarise_dataset

    source = ReadSettings(
        path=path,
        format=format,
        labels=labels,
        clean_splits=clean_splits,
        strict=strict,
        classes=classes,
    )
    summary = summarise_dataset(source, draft_classes)
    show_report(summary, _lines(summary), as_json, indent=1)


@app.command(epilog=epilog("data convert"))
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file or folder to read.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The file or new folder to write.")],
    to: Annotated[str, typer.Option(help=f"The format to write: {WRITABLE}.")],
    from_format: Annotated[
        str | None, typer.Option("--from", help=f"SRC's format, if not recognised: {READABLE}.")
    ] = None,
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Copy the images into DST.")
    ] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Link the images into DST instead of copying them.")
    ] = False,
    allow_outside: Annotated[
        bool,
        typer.Option(
            "--allow-outside",
            help="Also copy or link images that the labels name outside of SRC; each is listed.",
        ),
    ] = False,
    columns: Annotated[
        int | None,
        typer.Option(help="Write LLD's text labels of 5, 11, 12, 15 or 16 columns, not JSON."),
    ] = None,
    labels: LabelKind = None,
    clean_splits: CleanSplits = False,
    strict: Strict = False,
    classes: ClassMap = None,
    all_cells: Annotated[
        bool,
        typer.Option("--all-cells", help="Of an analysis, red cells and platelets as well."),
    ] = False,
    one_based: Annotated[
        bool,
        typer.Option("--one-based", help="Count VOC's corners from 1, as the VOC challenge does."),
    ] = False,
    offer_classes: Annotated[
        str | None,
        typer.Option(
            help="Classes that Label Studio's set-up offers, with commas between; all by default."
        ),
    ] = None,
    offer_attributes: Annotated[
        str | None,
        typer.Option(help="Attributes that it asks for, with commas between; all by default."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of the same name in DST.")
    ] = False,
) -> None:
    """Read a data set and write it in another format; say what that format could not carry.

    Results of an analysis (result.json) become proposals to correct: Label Studio, CVAT, QuPath and
    COCO keep scores and mark uncertain names.
    """
    from bloodfilm.cli.terminal import show
    from bloodfilm.core.errors import ConfigError
    from bloodfilm.core.text import plural
    from bloodfilm.workflows.convert import ConversionJob, ReadSettings
    from bloodfilm.workflows.convert import convert as run

    if copy_images and link:
        raise ConfigError("--copy-images and --link exclude each other; give one of them")
    job = ConversionJob(
        source=ReadSettings(
            path=source,
            format=from_format,
            labels=labels,
            clean_splits=clean_splits,
            strict=strict,
            classes=classes,
            all_cells=all_cells,
        ),
        target=target,
        to=to,
        images="copy" if copy_images else "link" if link else None,
        allow_outside=allow_outside,
        columns=columns,
        overwrite=overwrite,
        one_based=one_based,
        offer_classes=_words(offer_classes),
        offer_attributes=_words(offer_attributes),
    )
    done = run(job)
    show(f"wrote {target}: {plural(done.fields, 'field')} as {to}")
    for loss in done.losses:
        show(f"  {loss}")
    if done.issues:
        show(f"{plural(len(done.issues), 'issue')} in {source}")
    for found in done.issues[:SHOWN_ISSUES]:
        show(f"  {found}")
    if len(done.issues) > SHOWN_ISSUES:
        more = len(done.issues) - SHOWN_ISSUES
        show(f"  and {more} more; `bloodfilm data info --json` lists all")


def _words(text: str | None) -> list[str] | None:
    """Return the words between commas; `None` if nothing was given."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


# ---- a summary as text -----------------------------------------------------------------------


def _lines(summary: dict[str, Any]) -> list[str]:
    share = summary["region_share"]
    lines = [
        f"{summary['name']} ({summary['format']}, {summary['source']})",
        f"  licence     {summary['licence'] or 'not stated'}",
        f"  fields      {summary['fields']}",
        f"  cells       {summary['cells']}, of which {summary['ignored']} to ignore",
        f"  splits      {_groups(summary['splits'])}",
        f"  patients    {_several(summary['patients'])}",
        f"  diagnoses   {_groups(summary['diagnoses'])}",
        f"  domains     {_groups(summary['domains'])}",
        f"  known area  {'not known' if share is None else f'{share:.1%}'} of a field, on average",
    ]
    if summary["without_box"]:
        lines.append(f"  boxes       {summary['without_box']} cells have none")
    lines += _class_lines(summary) + _attribute_lines(summary)
    return lines + _issue_lines([found["message"] for found in summary["issues"]])


def _several(counts: dict[str, int]) -> str:
    return f"{len(counts)}: {_groups(counts)}" if counts else "not stated"


def _groups(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:SHOWN_GROUPS]]
    if len(counts) > SHOWN_GROUPS:
        shown.append(f"{len(counts) - SHOWN_GROUPS} more")
    return ", ".join(shown) or "not stated"


def _class_lines(summary: dict[str, Any]) -> list[str]:
    classes = summary["classes"]
    width = max(map(len, classes), default=0)
    return [
        "",
        "class" if classes else "no cell is labelled",
        *(f"  {name:<{width}}  {count:>8}" for name, count in classes.items()),
    ]


def _attribute_lines(summary: dict[str, Any]) -> list[str]:
    attributes = {n: a for n, a in summary["attributes"].items() if a["known"]}
    if not attributes:
        return ["", "no attribute is known"]
    width = max(map(len, attributes))
    lines = ["", "attribute, share of cells where it is known, values"]
    for name, found in attributes.items():
        lines.append(f"  {name:<{width}}  {found['share']:>6.1%}  {_groups(found['values'])}")
    unknown = [name for name in summary["attributes"] if name not in attributes]
    return lines + ([f"  never known: {', '.join(unknown)}"] if unknown else [])


def _issue_lines(messages: list[str]) -> list[str]:
    lines = ["", f"issues: {len(messages) or 'none'}"]
    lines += [f"  {line}" for line in messages[:SHOWN_ISSUES]]
    if len(messages) > SHOWN_ISSUES:
        lines.append(f"  and {len(messages) - SHOWN_ISSUES} more; --json lists all")
    return lines
