"""A loaded bundle that analyses images: what a Python program works with."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from bloodfilm.core.arrays import Image
from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.polygons import Region
from bloodfilm.core.progress import Progress
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.imaging.scale import Measurement, ScalePrior
from bloodfilm.imaging.sources import ImageInput, open_source
from bloodfilm.imaging.sources.open_slide import open_slide
from bloodfilm.imaging.sources.slide import SlideSource
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.bundle import Bundle, default_bundle, load_bundle
from bloodfilm.inference.film_offset import ONE_BY_ONE, FilmNaming
from bloodfilm.inference.fusion import Fusion
from bloodfilm.inference.manifest import FilmOffsetSpec
from bloodfilm.inference.stage_timer import StageTimer


class Model:
    """Detects, classifies and describes the cells of fields; may be used from several threads.

    Args:
        bundle: a verified bundle.
        device: `cpu`, `cuda`, or `auto`, which takes CUDA if ONNX Runtime has it.
        threads: of one call of a network. Keep 1 where fields are analysed side by side.
        min_score: the lowest confidence of a nucleated cell to report, instead of the bundle's.
        score_floor: also report, of every object type, what scores at least this: for evaluation.
        fusion: how stain and verification head bear on the detector's score, instead of the
            bundle's own way.
        fixed_input: scale every image to this longer side, px, and analyse it as it is, without a
            canonical view: a baseline for comparisons (see docs/travel.md), for no other use.

    Raises:
        BundleError: the networks do not fit the manifest or this program.
        ConfigError: the device is not available, a score is not between 0 and 1.

    Use it as a context manager, or call `close`, to free the networks' memory:

        with load_model() as model:
            result = model.analyze("field.png")
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        threads: int = 1,
        min_score: float | None = None,
        score_floor: float | None = None,
        fusion: Fusion | None = None,
        fixed_input: int | None = None,
    ) -> None:
        self._bundle = bundle
        self._analyzer: Analyzer | None = Analyzer(
            bundle, device, threads, min_score, fusion, score_floor, fixed_input
        )

    @property
    def bundle(self) -> Bundle:
        """The bundle: manifest, checksums, identity."""
        return self._bundle

    @property
    def fixed_input(self) -> int | None:
        """Longer side that every image is scaled to, px; `None` with a canonical view."""
        return self._open().fixed_input

    @property
    def outlines_cells(self) -> bool:
        """Whether cells are outlined, and so measured."""
        return self._open().outlines_cells

    @property
    def film_offset(self) -> FilmOffsetSpec | None:
        """How names follow the film; `None` where cells are named one by one."""
        return self._open().film_offset

    @property
    def taxonomy(self) -> Taxonomy:
        """The tree that object types and classes are nodes of."""
        return self._bundle.taxonomy

    @property
    def schema(self) -> Schema:
        """The attributes that the classifier answers."""
        return self._bundle.schema

    @property
    def analyzer(self) -> Analyzer:
        """The opened networks and how they work together; `ConfigError` if the model is closed."""
        return self._open()

    @property
    def classified_type(self) -> str:
        """The object type whose cells get a class and attributes."""
        return self._bundle.manifest.roles.classified

    def analyze(
        self,
        image: ImageInput,
        *,
        prior: ScalePrior | None = None,
        measurement: Measurement | None = None,
        film: FilmNaming = ONE_BY_ONE,
        name: str = "image",
    ) -> FieldResult:
        """Analyse one field.

        Args:
            image: a path; an array, grey (H, W), RGB (H, W, 3) or RGBA, of uint8, uint16 or floats
                from 0 to 1; a PIL image; or an `ImageSource`, which stays open. A slide is analysed
                in its zone of morphology, see `analyze_slide`.
            prior: what is known of the pixel size beforehand.
            measurement: of this image, if it has been measured before.
            film: how its cells are named by their film, where the bundle can: `analyze_many` learns
                it from the other fields of the film.
            name: name in the result of an image without a name.

        Raises:
            DataError: in one line, if this is no image of a field.
        """
        analyzer, clock = self._open(), StageTimer()
        with clock("open"):
            source = open_source(image, name)
        try:
            if isinstance(source, SlideSource):
                from bloodfilm.inference.slides import analyze_slide

                result = analyze_slide(source, analyzer, prior=prior)
            else:
                result = analyzer.analyze(source, prior, measurement, film)
        finally:
            if source is not image:
                source.close()
        return replace(result, timings={**clock.seconds, **result.timings})

    def shows(self, cell: CellResult) -> bool:
        """Whether a cell is one that the model reports to a user, without `score_floor`."""
        return self._open().shows(cell)

    def analyze_slide(
        self,
        slide: str | os.PathLike[str] | SlideSource,
        *,
        region: Region | None = None,
        fields: int | None = None,
        seed: int = 0,
        prior: ScalePrior | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> FieldResult:
        """Analyse a slide: its monolayer, or a region of it.

        Args:
            slide: a path, or an opened slide, which stays open.
            region: shapes in px of full resolution; `Region.everything()` for the whole slide; left
                out, the zone of morphology is found and analysed.
            fields: size of a random sample of fields of that part; all of it if left out.
            seed: of the sample.
            prior: what is known of the pixel size beforehand.
            workers: tiles in parallel; by default one per core, at most 8.
            progress: follows the work, can stop it.

        Returns:
            the nucleated cells, in px of full resolution; red cells and platelets are counted in
            `slide.counts`.

        Raises:
            DataError: in one line, if it is no slide, or holds nothing to analyse.
        """
        from bloodfilm.inference.slides import SlideSelection, analyze_slide

        analyzer = self._open()
        source = slide if isinstance(slide, SlideSource) else open_slide(slide)
        selection = SlideSelection(region=region, fields=fields, seed=seed)
        try:
            return analyze_slide(
                source, analyzer, selection, prior=prior, workers=workers, progress=progress
            )
        finally:
            if source is not slide:
                source.close()

    def remeasure(self, image: Image, measurement: Measurement) -> Measurement:
        """Measure a field without measurable outlines by detected red cells."""
        return self._open().remeasure(image, measurement)

    def occlusion_maps(
        self, image: Image, result: FieldResult, cells: Sequence[CellResult]
    ) -> dict[str, list[int]]:
        """Return where the names of cells come from; see `inference.occlusion`.

        Args:
            image: the field's pixels (H, W, 3).
            result: of the field, by this model.
            cells: of it, that the classifier has named.

        Returns:
            By cell id, row by row of a square grid, how many percentage points the probability of
            the cell's name falls where it is hidden.
        """
        from bloodfilm.inference.occlusion import occlusion_maps

        return occlusion_maps(self._open(), image, result, cells)

    def close(self) -> None:
        """Free the networks' memory; the model cannot be used afterwards."""
        self._analyzer = None
        self._bundle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = ", closed" if self._analyzer is None else ""
        return f"Model({self._bundle.manifest.name!r}, {str(self._bundle.path)!r}{closed})"

    def _open(self) -> Analyzer:
        if self._analyzer is None:
            raise ConfigError(f"{self._bundle.path}: the model is closed; load it again")
        return self._analyzer


def load_model(
    bundle: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    threads: int = 1,
    min_score: float | None = None,
    score_floor: float | None = None,
    fixed_input: int | None = None,
) -> Model:
    """Load a model bundle, verify it and open its networks.

    Args:
        bundle: its folder, or the name of one that comes with the program (`shipped_bundles`); the
            default one if left out.
        device: `cpu`, `cuda`, or `auto`, which takes CUDA where ONNX Runtime has it.
        threads: of one image; images of `analyze` run side by side anyway.
        min_score: lowest confidence of a nucleated cell, in [0, 1]; the bundle's own if left out.
        score_floor, fixed_input: see `Model`.

    Raises:
        BundleError: if the bundle is missing, damaged, or of another version.
        ConfigError: if the device is not available, or a score is not between 0 and 1.
    """
    found = default_bundle() if bundle is None else load_bundle(Path(bundle))
    return Model(
        found,
        device=device,
        threads=threads,
        min_score=min_score,
        score_floor=score_floor,
        fixed_input=fixed_input,
    )
