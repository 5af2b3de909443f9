"""`bloodfilm films`: draw a labelled data set of synthetic fields."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def films(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the data set.")],
    fields: Annotated[int, typer.Option(min=1, help="Fields of each look.")] = 20,
    look: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOOK",
            help="A look, e.g. lld40x-like; repeatable [four that imitate real sets].",
        ),
    ] = None,
    mix: Annotated[
        str, typer.Option(help="Who is on the glass: five (normal classes, evenly), or a mix.")
    ] = "five",
    small: Annotated[
        bool, typer.Option("--small", help="Label red cells and platelets too.")
    ] = False,
    scene: Annotated[
        str,
        typer.Option(
            help="normal; hard: odd red cells, dirt and artefacts in random looks; empty: hard "
            "without white cells."
        ),
    ] = "normal",
    seed: Annotated[int, typer.Option(help="The same seed draws the same fields.")] = 0,
    lld: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUBSET",
            help="Write LLD's own layout instead: a subset, e.g. H_40X_C2; repeatable.",
        ),
    ] = None,
    patients: Annotated[int, typer.Option(min=2, help="Of a set in LLD's layout.")] = 6,
    side: Annotated[int, typer.Option(min=160, help="Of its fields, px.")] = 640,
    slide: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Draw one slide of that size, px, instead of fields."),
    ] = None,
    slide_format: Annotated[str, typer.Option(help="Of the slide: tiff, svs or ome.")] = "tiff",
    slide_um: Annotated[float, typer.Option(help="Micrometres per pixel of the slide.")] = 0.25,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT", help="A known fault to inject in LLD's layout, or all; repeatable."
        ),
    ] = None,
) -> None:
    """Draw fields with exact truth: boxes, classes and the seven attributes.

    With --scene hard, or empty, it draws what a detector takes for white cells by mistake, --fields
    of them altogether, in random looks.

    Writes DIR/<look>/*.png and DIR/dataset.json in bloodfilm's own format, which `evaluate`,
    `train` and `data convert` read. Looks that are close-ups hold one white cell a field.

    With --lld it writes a set in LLD's layout, JSON and text labels, and DIR/planted.json with the
    faults that --fault injects: a test bed for `data audit`, `data fix` and `data split`.

    With --slide it draws one pyramidal slide with a thick area, a monolayer, a feathered edge, pen
    marks and empty glass; DIR/dataset.json has its white cells, DIR/areas.geojson its areas.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.core.errors import ConfigError
    from bloodfilm.core.text import plural
    from bloodfilm.workflows.render import (
        DEFAULT_PROFILES,
        FaultyRenderJob,
        RenderJob,
        render,
        render_faulty,
    )

    if slide:
        _slide(out, slide, slide_format, slide_um, "normal" if mix == "five" else mix, seed)
        return
    if fault and not lld:
        raise ConfigError("--fault: faults are injected into LLD's layout; give --lld too")
    kinds: tuple[Literal["normal", "hard", "empty"], ...] = ("normal", "hard", "empty")
    chosen = next((k for k in kinds if k == scene), None)
    if chosen is None:
        raise ConfigError(f"--scene {scene}: choose from {', '.join(kinds)}")
    if chosen != "normal" and (lld or look or mix != "five"):
        raise ConfigError(
            f"--scene {scene}: draws looks and cells at random; leave out --look, --mix and --lld"
        )
    if lld:
        from bloodfilm.synthetic.lld_fixture.builder import SPARSE

        faulty = FaultyRenderJob(
            out=out,
            subsets=lld,
            patients=patients,
            fields=fields,
            side=side,
            faults=fault or [],
            seed=seed,
        )
        count = render_faulty(faulty)
        subsets = plural(len(lld), "subset")
        show(f"{out}: {subsets} of {patients} patients; {plural(count, 'fault')} injected")
        show(f"  text labels of 12 columns, and of 16 in {SPARSE}")
        return
    job = RenderJob(
        out=out,
        fields=fields,
        profiles=look or DEFAULT_PROFILES,
        mix=mix,
        small=small,
        scene=chosen,
        seed=seed,
    )
    with TerminalProgress() as progress:
        made = render(job, progress)
    show(f"{plural(len(made), 'field')}, {sum(made.class_counts().values())} cells in {out}")


def _slide(out: Path, size: str, layout: str, um_per_px: float, mix: str, seed: int) -> None:
    """Draw a slide."""
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.core.errors import ConfigError
    from bloodfilm.core.text import plural
    from bloodfilm.synthetic.slides import LAYOUTS, SlideSpec
    from bloodfilm.workflows.render_slide import NAMES, SlideRenderJob, render_slide, slide_size

    if layout not in LAYOUTS:
        raise ConfigError(f"--slide-format {layout}: give one of {', '.join(LAYOUTS)}")
    width, height = slide_size(size)
    spec = SlideSpec(width=width, height=height, um_per_px=um_per_px, mix=mix, seed=seed)
    with TerminalProgress() as progress:
        made = render_slide(SlideRenderJob(out=out, spec=spec, layout=layout), progress)
    show(f"{out / NAMES[layout]}: {plural(len(made.fields[0].cells), 'white cell')}")
