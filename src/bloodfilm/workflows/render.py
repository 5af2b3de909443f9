"""Render synthetic fields: a labelled data set, LLD's layout with known faults, demo fields."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import ConfigError, OutputError
from bloodfilm.core.files import refuse_links, write_json
from bloodfilm.core.locks import is_empty
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.formats import save_dataset
from bloodfilm.synthetic import (
    MIXES,
    PROFILES,
    DatasetSpec,
    default_scene,
    get_profile,
    render_field,
    save_image,
    write_dataset,
    write_hard_fields,
)
from bloodfilm.workflows.outputs import hold_folder

DEFAULT_PROFILES = ("pbc-like", "bccd-like", "raabin-like", "lld40x-like")
FIVE = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
DEMO = (("lld40x-like", 4), ("pbc-like", 6), ("bccd-like", 4))
"""Fields of the demonstration: acquisition profile, and how many."""


@dataclass(frozen=True, kw_only=True)
class RenderJob:
    """A labelled data set to render.

    Attributes:
        out: a new folder.
        fields: fields of each profile.
        profiles: acquisition profiles by name.
        mix: `five` (five normal classes, evenly) or the name of a mix.
        small: whether red cells and platelets are labelled, too.
        scene: `normal`; `hard`: odd red cells, dirt, artefacts, in random profiles; `empty`: hard
            without white cells. For the last two, `fields` are rendered altogether.
        seed: the same seed renders the same fields.
    """

    out: Path
    fields: int = 20
    scene: Literal["normal", "hard", "empty"] = "normal"
    profiles: Sequence[str] = DEFAULT_PROFILES
    mix: str = "five"
    small: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class FaultyRenderJob:
    """A data set in LLD's layout to render, with known faults.

    Attributes:
        out: a new folder.
        subsets: of LLD, e.g. `H_40X_C2`.
        patients: how many.
        fields: of each patient.
        side: of a field, pixels.
        faults: names of faults to inject, or `all`.
        seed: the same seed renders the same set.
    """

    out: Path
    subsets: Sequence[str]
    patients: int = 6
    fields: int = 20
    side: int = 640
    faults: Sequence[str] = ()
    seed: int = 0


def render(job: RenderJob, progress: Progress | None = None) -> Dataset:
    """Render a data set into a new folder, and write its labels in bloodfilm's own format."""
    unknown = [n for n in job.profiles if n not in PROFILES]
    if unknown or (job.mix != "five" and job.mix not in MIXES):
        raise ConfigError(
            f"no look or mix {unknown[0] if unknown else job.mix!r}; "
            f"looks: {', '.join(PROFILES)}; mixes: five, {', '.join(MIXES)}"
        )
    with new_folder(job.out):
        return _render(job, progress or NoProgress())


def _render(job: RenderJob, progress: Progress) -> Dataset:
    if job.scene != "normal":
        hard = write_hard_fields(
            job.out / job.scene,
            job.fields,
            empty=job.scene == "empty",
            small=job.small,
            seed=job.seed,
        )
        hard = replace(hard, source=job.out)
        save_dataset(hard, job.out / "dataset.json", "bloodfilm")
        return hard
    classes = dict.fromkeys(FIVE, 1.0) if job.mix == "five" else job.mix
    fields = []
    profiles = track(job.profiles, progress, "profiles", len(job.profiles))
    for number, name in enumerate(profiles):
        spec = default_scene(PROFILES[name], classes)
        plan = DatasetSpec(profiles=(name,), spec=spec, small=job.small)
        drawn = write_dataset(job.out / name, job.fields, plan, seed=job.seed + number)
        fields += [replace(f, patient=f"{name} {f.patient}") for f in drawn]
    whole = replace(drawn, fields=tuple(fields), source=job.out)
    save_dataset(whole, job.out / "dataset.json", "bloodfilm")
    return whole


def render_faulty(job: FaultyRenderJob) -> int:
    """Render a set in LLD's layout and list the injected faults; return how many there are."""
    from bloodfilm.synthetic.lld_fixture.builder import FaultPlan
    from bloodfilm.synthetic.lld_fixture.cell_faults import FAULTS, write_faulty_dataset

    faults = list(FAULTS) if "all" in job.faults else list(job.faults)
    subsets = list(job.subsets)
    plan = FaultPlan(subsets, job.patients, job.fields, job.side, sparse=True, faults=faults)
    with new_folder(job.out):
        injected = write_faulty_dataset(job.out, plan, seed=job.seed)
        write_json(job.out / "planted.json", [item.to_json(job.out) for item in injected])
    return len(injected)


def render_demo(
    folder: Path,
    progress: Progress | None = None,
    fields: Sequence[tuple[str, int]] | None = None,
) -> list[Path]:
    """Render the fields of the demonstration as PNG files, a folder per profile.

    Returns:
        their paths, in order.
    """
    wanted = [
        (n, seed) for n, count in (DEMO if fields is None else fields) for seed in range(count)
    ]
    paths = []
    for name, seed in track(wanted, progress or NoProgress(), "rendering", len(wanted)):
        image, _ = render_field(name, default_scene(get_profile(name)), seed=seed)
        paths.append(folder / name / f"field_{seed + 1}.png")
        refuse_links(folder.parent, paths[-1])
        save_image(paths[-1], image)
    return paths


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Hold a folder that is new or empty."""
    with hold_folder(out, "rendering"):
        if not is_empty(out):
            raise OutputError(f"{out}: is not empty; name a new folder")
        yield
