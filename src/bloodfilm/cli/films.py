"""`bloodfilm films`: draw a labelled data set of synthetic fields."""

from pathlib import Path
from typing import Annotated

import typer

FIVE = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")


def films(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the data set.")],
    fields: Annotated[int, typer.Option(min=1, help="Fields of each look.")] = 20,
    look: Annotated[
        list[str] | None,
        typer.Option(help="A look, e.g. lld40x-like; repeatable [four that imitate real sets]."),
    ] = None,
    mix: Annotated[
        str, typer.Option(help="Who is on the glass: five (normal classes, evenly), or a mix.")
    ] = "five",
    small: Annotated[
        bool, typer.Option("--small", help="Label red cells and platelets too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed draws the same fields.")] = 0,
    lld: Annotated[
        list[str] | None,
        typer.Option(help="Write LLD's own layout instead: a subset, e.g. H_40X_C2; repeatable."),
    ] = None,
    patients: Annotated[int, typer.Option(min=2, help="Of a set in LLD's layout.")] = 6,
    side: Annotated[int, typer.Option(min=160, help="Of its fields, px.")] = 640,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A known fault to plant in LLD's layout, or all; repeatable."),
    ] = None,
) -> None:
    """Draw fields with exact truth: boxes, classes and the seven attributes.

    Writes DIR/<look>/*.png and DIR/dataset.json in bloodfilm's own format, which `evaluate`,
    `train` and `data convert` read. Looks that are close-ups hold one white cell a field.

    With --lld it writes a set in LLD's layout, JSON and text labels, and DIR/planted.json with the
    faults that --fault plants: a test bed for `data audit`, `data fix` and `data split`.
    """
    from dataclasses import replace

    from bloodfilm.core.errors import ConfigError
    from bloodfilm.formats import save_dataset
    from bloodfilm.synthetic import MIXES, PROFILES, DatasetSpec, default_scene, write_dataset

    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty; name a new folder")
    if lld:
        _write_lld(out, lld, (patients, fields, side, seed), fault or [])
        return
    if fault:
        raise ConfigError("--fault: faults are planted in LLD's layout; give --lld too")
    names = look or ["pbc-like", "bccd-like", "raabin-like", "lld40x-like"]
    unknown = [n for n in names if n not in PROFILES]
    if unknown or (mix != "five" and mix not in MIXES):
        raise ConfigError(
            f"films: no look or mix {unknown[0] if unknown else mix!r}; "
            f"looks: {', '.join(PROFILES)}; mixes: five, {', '.join(MIXES)}"
        )
    chosen = dict.fromkeys(FIVE, 1.0) if mix == "five" else mix
    parts = []
    for number, name in enumerate(names):
        recipe = default_scene(PROFILES[name], chosen)
        plan = DatasetSpec(looks=(name,), recipe=recipe, small=small)
        drawn = write_dataset(out / name, fields, plan, seed=seed + number)
        parts += [replace(f, patient=f"{name} {f.patient}") for f in drawn]
    every = replace(drawn, fields=tuple(parts), source=out)
    save_dataset(every, out / "dataset.json", "bloodfilm")
    print(f"{len(every)} fields, {sum(every.class_counts().values())} cells in {out}")


def _write_lld(
    out: Path, subsets: list[str], numbers: tuple[int, int, int, int], faults: list[str]
) -> None:
    """Write a set in LLD's layout, and what was planted in it."""
    from bloodfilm.core.files import write_json
    from bloodfilm.synthetic.lld_fixture.builder import SPARSE, FaultPlan
    from bloodfilm.synthetic.lld_fixture.cell_faults import FAULTS, write_faulty_dataset

    patients, fields, side, seed = numbers
    chosen = list(FAULTS) if "all" in faults else faults
    plan = FaultPlan(subsets, patients, fields, side, sparse=True, faults=chosen)
    planted = write_faulty_dataset(out, plan, seed=seed)
    listed = [item.to_json(out) for item in planted]
    write_json(out / "planted.json", listed)
    print(f"{out}: {len(subsets)} subsets of {patients} patients; {len(planted)} faults planted")
    print(f"  text labels of 12 columns, and of 16 in {SPARSE}")
