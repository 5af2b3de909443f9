"""`bloodfilm demo`: draw a few fields and analyse them, to see what comes out."""

from pathlib import Path
from typing import Annotated

import typer

# What to draw: looks of `bloodfilm.synthetic`, and fields of each.
FIELDS = (("lld40x-like", 4), ("pbc-like", 6), ("bccd-like", 4))


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for everything.")],
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Model bundle; the shipped one if left out."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results in DIR.")
    ] = False,
) -> None:
    """Draw example fields into DIR/fields, analyse them into DIR.

    The fields are drawn, not photographed: they show how the program works, not how well.
    """
    from bloodfilm.cli.running import AnalysisJob, format_summary, prepare_output, timed_run
    from bloodfilm.core.domain import Domain
    from bloodfilm.inference.analyzer import Analyzer
    from bloodfilm.inference.bundle import default_bundle, load_bundle

    analyzer = Analyzer(load_bundle(bundle) if bundle else default_bundle())
    prepare_output(out, overwrite, resume=False)
    images = draw_fields(out / "fields")
    job = AnalysisJob(images, out, analyzer, Domain(), {"paths": [str(out / "fields")]})
    tally, seconds = timed_run(job)
    print(format_summary(job, tally, seconds))
    if tally.exit_code:
        raise typer.Exit(tally.exit_code)


def draw_fields(folder: Path) -> list[Path]:
    """Draw fields as PNG files, a folder per look; returns their paths in order."""
    from bloodfilm.core.files import refuse_links
    from bloodfilm.synthetic import default_scene, get_profile, render_field, save_image

    paths = []
    for look, count in FIELDS:
        place = folder / look
        for seed in range(count):
            image, _ = render_field(look, default_scene(get_profile(look)), seed=seed)
            paths.append(place / f"field_{seed + 1}.png")
            refuse_links(folder.parent, paths[-1])
            save_image(paths[-1], image)
    return paths
