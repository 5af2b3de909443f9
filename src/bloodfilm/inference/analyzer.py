"""One field in, one result out: view, detect, check the scale, compare stains, crop, read."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.core.boxes import centres, clip, iou
from bloodfilm.core.detections import Detections
from bloodfilm.core.errors import BundleError, ConfigError
from bloodfilm.core.field import Box
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import RED_CELL_UM
from bloodfilm.core.results import CellResult, CellShape, FieldResult, ImageRef, with_ids
from bloodfilm.imaging.canonical import (
    PROVIDED,
    CanonicalView,
    fixed_view,
    metadata_conflict,
    red_cell_enlargement,
    refine,
    view_of,
)
from bloodfilm.imaging.film_profile import FEATURES, film_profile
from bloodfilm.imaging.picture_key import PictureKey
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.imaging.scale import Measurement, ScalePrior, measure
from bloodfilm.imaging.sharpness import measure_sharpness
from bloodfilm.imaging.sources.base import ImageSource, read_whole
from bloodfilm.imaging.stain import contrast_to, stain_contrast
from bloodfilm.inference.bundle import Bundle
from bloodfilm.inference.classifier import (
    CLASSIFIER_BATCH,
    CellClassification,
    CellClassifier,
    touches_edge,
)
from bloodfilm.inference.detector import DetectionParameters, Detector, OnnxBackend
from bloodfilm.inference.film_offset import ONE_BY_ONE, FilmNaming
from bloodfilm.inference.film_score import MIN_FILM_SCORE, FilmScore, film_score, looked_at
from bloodfilm.inference.fusion import Fusion
from bloodfilm.inference.graph_run import batches
from bloodfilm.inference.issues import cell_issues, field_issues, not_a_film
from bloodfilm.inference.manifest import FilmOffsetSpec, FilmStatistics
from bloodfilm.inference.measured_attributes import MEASURES
from bloodfilm.inference.nms import best_of_each, cross_class_nms
from bloodfilm.inference.outlines import CellOutliner
from bloodfilm.inference.scale_search import search_scale
from bloodfilm.inference.stage_timer import StageTimer

MAX_PER_TILE = 5000
MAX_FIXED_INPUT = 8192
UNCERTAIN_PER_PIXEL = 150e-6
"""Detections below the bundle's threshold that are classified, per canonical pixel: no film holds
more nucleated cells than 150 on a square of 0.2 mm."""
# Detected red cells check the outlines but do not refine them: on LLD's fields their boxes are 13
# to 19 % too tall, and using them worsened the aspect ratio of single fields.
SCALE_TOLERANCE = 0.25
MIN_RED_CELLS = 10
CLOSER = (1.7, 2.9)
"""How many times larger cells of a close-up are than at the scale of its folder."""
UNEXPLAINED, EXPLAINED_CLOSE_UP = 0.6, 0.75
"""Share of the foreground on cells: below the first a field may be a close-up, from the second on
it is one."""
SAME_SIZE = 1.35
"""Factor by which red cells found at a scale may differ from their true size, and confirm it."""
_ORIGIN = {"pooled": "folder's", "assumed": "assumed"}
LONE_IOU = 0.3
ATTRIBUTES_ALONE = issue(
    issue_codes.ATTRIBUTES_NOT_MEASURED,
    "could not be outlined; attributes are those of the network alone",
)


class Analyzer:
    """Detects and classifies the cells of fields with one bundle; thread-safe.

    Args:
        bundle: a verified bundle.
        device: `cpu`, `cuda`, or `auto`, which takes CUDA if ONNX Runtime has it.
        threads: of one call of a graph. Give 1 where fields are analysed side by side.
        min_score: replaces the bundle's threshold for the classified type. Below the bundle's
            threshold a cell may also be reported under another type. No box and no score depends
            on it: a lower one adds cells and changes none.
        score_floor: also report what the detector gives at least this score, of every type, for
            evaluation.
        weights: how stain and verification bear on the detector's score, in place of the bundle's
            own.
        fixed_input: scale every image so that its longer side has so many pixels, and use it as it
            is: without measuring scale and light, and without comparing stains.

    Raises:
        BundleError: the graphs do not fit the manifest or this program.
        ConfigError: the device is not there, the score is no probability.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        threads: int = 1,
        min_score: float | None = None,
        weights: Fusion | None = None,
        score_floor: float | None = None,
        fixed_input: int | None = None,
    ) -> None:
        if fixed_input is not None and not 32 <= fixed_input <= MAX_FIXED_INPUT:
            raise ConfigError(f"fixed input {fixed_input}: must be 32 to {MAX_FIXED_INPUT} px")
        self.fixed_input = fixed_input
        for name, value in (("min score", min_score), ("score floor", score_floor)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} {value}: must lie between 0 and 1")
        self.bundle = bundle
        manifest = bundle.manifest
        self.spec = manifest.detector
        for part in manifest.graphs.values():
            if part.background != BACKGROUND:
                raise BundleError(
                    f"{bundle.path}: {part.file} wants a background of {part.background}, this "
                    f"program renders {BACKGROUND}; use a bloodfilm that matches the bundle"
                )
        self.kinds = manifest.object_types
        self.classified = manifest.roles.classified
        self.thresholds = dict(self.spec.thresholds)
        if min_score is not None:
            self.thresholds[self.classified] = min_score
        self.shown_from = dict(self.thresholds)
        if score_floor is not None:
            self.thresholds = {k: min(v, score_floor) for k, v in self.thresholds.items()}
        self.weights = weights or self.spec.score_fusion
        self.classifier = CellClassifier(manifest)
        self.films = None if fixed_input is not None else manifest.films
        _check_figures(bundle, self.films)
        self.cautious_classifier = CellClassifier(manifest, cautious=True)
        # What a run at the bundle's own thresholds would find is always there, as context, and so
        # is all that bears on others: no threshold decides which red cells are certain.
        lowest = {k: min(v, self.spec.thresholds[k]) for k, v in self.thresholds.items()}
        reached = self.weights.lowest_detector_score(lowest[self.classified])
        if score_floor is not None and self.spec.fusion is not None:
            # A fused score may be far below the detector's, and still rank above others.
            self.thresholds[self.classified] = 0.0
            reached = min(reached, score_floor)
        lowest[self.classified] = min(reached, self._reference_from(self.classified))
        backend = OnnxBackend(bundle.detector(device, threads), self.spec, len(self.kinds))
        self._detector = Detector(
            backend, DetectionParameters.of_spec(self.spec, self.kinds, lowest, MAX_PER_TILE)
        )
        self._classifier_session = bundle.classifier(device, threads)
        self._outliner = (
            None
            if manifest.outlines is None
            else CellOutliner(manifest.outlines, bundle.outlines(device, threads))
        )

    @property
    def outlines_cells(self) -> bool:
        """Whether cells are outlined, and so measured."""
        return self._outliner is not None

    @property
    def film_offset(self) -> FilmOffsetSpec | None:
        """How names follow the film; `None` where cells are named one by one."""
        return None if self.fixed_input is not None else self.classifier.spec.film_offset

    def shows(self, cell: CellResult) -> bool:
        """Whether a cell would be reported without `score_floor`."""
        return cell.confidence >= self.shown_from[cell.object_type]

    def analyze(
        self,
        source: ImageSource,
        prior: ScalePrior | None = None,
        measurement: Measurement | None = None,
        film: FilmNaming = ONE_BY_ONE,
    ) -> FieldResult:
        """Analyse one field.

        Args:
            source: the field.
            prior: prior knowledge of its pixel size; without it, its metadata are used.
            measurement: of this image, if it has been measured before.
            film: how its cells are named by their film.
        """
        clock = StageTimer()
        image = read_whole(source)
        prior = (prior or ScalePrior()).with_image(source.pixel_size)
        view = self._view(image, prior, measurement, clock)
        found, sharpness, surplus = self._detect(image, view, clock)
        view, issues, again = self._check_scale(view, found, prior)
        if again:
            found, sharpness, surplus = self._detect(image, view, clock)
        closer = self._closer_view(image, view, found, clock)
        if closer is not None:
            view, said = closer
            issues = [*issues, *said]
            found, sharpness, surplus = self._detect(image, view, clock)
        found = _in_order(found)
        with clock("stain"):
            found, contrasts = self._compare(image, view, found)
        with clock("film"):
            least = self.spec.thresholds[self.classified]
            far = self._far_from_training(image, view, found, sharpness, least)
        kept, listed = self._named(image, view, (found, contrasts), clock, bool(far), film)
        key = PictureKey.of_image(image)
        ref = ImageRef(source.name, *source.size, source.identity, key.pixels, key.appearance)
        cells = with_ids(listed, ref.sha256)
        shown = tuple(filter(self.shows, cells))
        issues = [*source.issues, *issues, *far, *field_issues(view, shown, sharpness)]
        with clock("film"):
            score = self._film_score(image, view, kept)
        if score is not None and score.score < MIN_FILM_SCORE:
            issues.append(not_a_film(score))
        if surplus:
            message = f"{surplus} detections that score least are left out"
            issues.append(issue(issue_codes.DETECTIONS_LIMITED, message, left_out=surplus))
        record = view.record(
            _finite(round(sharpness, 2)), None if score is None else round(score.score, 3)
        )
        if film.offset is not None:
            record = replace(record, film_cells=film.offset.cells)
        return FieldResult(ref, record, cells, tuple(issues), dict(clock.seconds))

    def _view(
        self,
        image: Pixels,
        prior: ScalePrior,
        measurement: Measurement | None,
        clock: StageTimer,
    ) -> CanonicalView:
        """Return the view in which a field is analysed."""
        if self.fixed_input is not None:
            return fixed_view(image, self.fixed_input)
        with clock("view"):
            measurement = measurement or measure(image, prior.illumination_of(image))
            view = view_of(measurement, prior)
        if view.scale_source == "assumed":
            with clock("scale"):
                view = view_of(self.remeasure(image, measurement), prior)
        return view

    def _far_from_training(
        self,
        image: Pixels,
        view: CanonicalView,
        found: Detections,
        sharpness: float,
        least: float,
    ) -> list[Issue]:
        """Return an issue if stain and optics are far from those of every training set.

        `least` is the lowest score of a detection that counts as a nucleated cell.
        """
        if self.films is None:
            return []
        nucleated = (found.type_ids == self._kind(self.classified)) & (found.scores >= least)
        red = self._sure_red_cells(found)
        profile = film_profile(image, view, red, found.boxes[nucleated], sharpness)
        if profile is None:
            return []
        site, distance = self.films.nearest(profile.tolist())
        if distance <= self.films.limit:
            return []
        confidence = self.cautious_classifier.spec.class_confidence
        message = (
            f"stain or optics are far from all that the model was trained on (distance "
            f"{distance:.1f}, {self.films.limit:.1f} is the limit): a class is named from a "
            f"probability of {confidence:.2f}"
        )
        facts = {"distance": round(distance, 3), "limit": self.films.limit, "nearest": site}
        code = issue_codes.UNFAMILIAR_FILM
        return [issue(code, message, **facts, class_confidence=confidence)]

    def analyze_part(
        self,
        image: Pixels,
        view: CanonicalView,
        red_cell: Floats | None,
        clock: StageTimer,
        cautious: bool = False,
        film: FilmNaming = ONE_BY_ONE,
    ) -> "PartOfSlide":
        """Analyse a part of a slide whose scale and colours are known.

        Args:
            image: RGB (H, W, 3).
            view: of the part.
            red_cell: absorbance (3,) of the slide's red cells; `None` takes those of the part.
            clock: sums the seconds of each stage.
            cautious: whether the slide's stain or optics are far from those of the training.
            film: how its cells are named by their film.
        """
        found, sharpness, surplus = self._detect(image, view, clock)
        found = _in_order(found)
        with clock("stain"):
            compared = self._compare(image, view, found, red_cell)
        kept, cells = self._named(image, view, compared, clock, cautious, film)
        with clock("film"):
            score = self._film_score(image, view, kept)
        return PartOfSlide(cells, _finite(sharpness), score, surplus)

    def red_cells_in(self, image: Pixels, view: CanonicalView) -> Floats:
        """Return the boxes (n, 4), px of the image, of its certain red cells."""
        return self._sure_red_cells(self._detect(image, view, StageTimer())[0])

    def checked_view(
        self, image: Pixels, view: CanonicalView, prior: ScalePrior
    ) -> tuple[CanonicalView, list[Issue]]:
        """Check a view against what is detected in an image.

        Returns:
            the view to use, and issues: of the scale, and `unfamiliar-film` where stain or optics
            are far from those of the training.
        """
        found, sharpness, _ = self._detect(image, view, StageTimer())
        used, issues, again = self._check_scale(view, found, prior)
        if again:
            found, sharpness, _ = self._detect(image, used, StageTimer())
        least = self._reference_from(self.classified)
        return used, [*issues, *self._far_from_training(image, used, found, sharpness, least)]

    def _named(
        self,
        image: Pixels,
        view: CanonicalView,
        compared: tuple[Detections, Floats],
        clock: StageTimer,
        cautious: bool,
        film: FilmNaming,
    ) -> tuple[Detections, list[CellResult]]:
        """Classify, weigh and outline detections, given with their stain contrasts.

        Returns those that are kept, and their results.
        """
        found, contrasts = compared
        classifier = self.cautious_classifier if cautious else self.classifier
        classified_cells = self._classify_cells(image, view, found, clock, classifier, film)
        keep, scores = self._confirm(found, classified_cells)
        found = replace(found, scores=scores)
        which = np.flatnonzero(keep)
        if film.residuals is not None:
            sure = scores >= self.spec.thresholds[self.classified]
            rows = [c.residual for i, c in classified_cells.items() if keep[i] and sure[i]]
            film.residuals.extend(row[None] for row in rows if row is not None)
        shapes = self._shapes(image, view, found, which, clock)
        cells = list(self._cells(view, found, contrasts, classified_cells, which, shapes))
        return found.take(which), cells

    def _film_score(
        self, image: Pixels, view: CanonicalView, found: Detections
    ) -> FilmScore | None:
        """Return the evidence for a blood film; `None` for bare glass or without red-cell types."""
        ruler = self.bundle.manifest.roles.ruler
        if ruler is None or self.fixed_input is not None:
            return None
        # The bundle's own thresholds apply, not those of the caller.
        least = np.array([self.spec.thresholds[kind] for kind in self.kinds])
        found = found.take(np.flatnonzero(found.scores >= least[found.type_ids]))
        red = found.type_ids == self._kind(ruler)
        nucleated = found.type_ids == self._kind(self.classified)
        boxes = found.boxes
        score = film_score(image, view, boxes[red], boxes[nucleated], boxes[~red & ~nucleated])
        spec = self.bundle.manifest.classifier
        if not spec.verifies:  # no classifier has confirmed them
            score = replace(score, nucleated=False)
        limit = spec.red_cell_novelty
        if limit is not None and score.is_doubtful and red.any():
            novelty, logit = self._red_cell_answers(image, view, boxes[red], found.scores[red])
            score = score.with_answers(novelty, limit, logit)
        return None if score.empty else score

    def red_cell_novelty(
        self, image: Pixels, view: CanonicalView, boxes: Floats, scores: Floats
    ) -> float | None:
        """Return how unlike anything learnt the red cells of a field look to the classifier.

        Args:
            image: the field, RGB (H, W, 3).
            view: its canonical view.
            boxes: (n, 4) of its red cells, px.
            scores: (n,) of their detections.

        Returns:
            the median novelty of some of them; `None` without any.
        """
        return self._red_cell_answers(image, view, boxes, scores)[0] if len(boxes) else None

    def _red_cell_answers(
        self, image: Pixels, view: CanonicalView, boxes: Floats, scores: Floats
    ) -> tuple[float, float | None]:
        """Median novelty of some red cells, and median logit of their being nucleated cells.

        Arguments are those of `red_cell_novelty`; the logit is `None` without verification.
        """
        which = looked_at(scores)
        crops = self.classifier.crops(view, image, centres(boxes[which]))
        outputs = self.classifier.outputs_of(self._classifier_session, crops)
        answers = dict(zip(self.classifier.outputs, outputs, strict=True))
        logit = float(np.median(answers["nucleated"])) if "nucleated" in answers else None
        return float(np.median(answers["novelty"])), logit

    def remeasure(self, image: Pixels, measurement: Measurement) -> Measurement:
        """Measure a field without measurable outlines by detected red cells.

        Returns the measurement unchanged if none are found or the bundle has no red-cell type.
        """
        if self.bundle.manifest.roles.ruler is None:
            return measurement
        clock = StageTimer()
        return search_scale(
            image,
            measurement,
            lambda part, view: self._sure_red_cells(self._detect(part, view, clock)[0]),
        )

    def _detect(
        self, image: Pixels, view: CanonicalView, clock: StageTimer
    ) -> tuple[Detections, float, int]:
        """Detections in original pixels, sharpness of the view, and how many were left out.

        The detector has learnt red cells of 7.5 um and is shown them at that size, whatever they
        measure by granulocytes: that is for what is measured and named.
        """
        um_per_px = self.spec.um_per_px * view.red_cell_factor
        with clock("render"):
            canonical = view.render(image, um_per_px)
            sharpness = measure_sharpness(canonical)
        found = self._detector.detect(canonical, clock)
        with clock("decode"):
            every = found
            found = self._without_surplus(every, canonical.shape[0] * canonical.shape[1])
            surplus = len(every) - len(found)
            original = clip(view.to_original(found.boxes, um_per_px), view.width, view.height)
            inside = np.asarray((original[:, 2] > 0) & (original[:, 3] > 0))
            found = found.with_boxes(original).take(inside)
        return found, sharpness, surplus

    def _without_surplus(self, found: Detections, pixels: int) -> Detections:
        """Leave out uncertain detections of the classified type beyond a plausible number."""
        classified = found.type_ids == self._kind(self.classified)
        uncertain = classified & (found.scores < self.spec.vote_thresholds[self.classified])
        return best_of_each(found, uncertain, max(1, round(UNCERTAIN_PER_PIXEL * pixels)))

    def _check_scale(
        self, view: CanonicalView, found: Detections, prior: ScalePrior
    ) -> tuple[CanonicalView, list[Issue], bool]:
        """Check the scale of the view against the detected red cells.

        Returns the view to use, issues, and whether to repeat detection.
        """
        red = self._sure_red_cells(found)
        if len(red) < MIN_RED_CELLS or self.fixed_input is not None:
            return view, [], False
        free = replace(view, scale_source="measured", aspect_source="measured")
        # Where granulocytes say that red cells are no 7.5 um, either these differ, or only their
        # outlines do, which a detector does not follow.
        sizes = dict.fromkeys((view.red_cell_um, RED_CELL_UM))
        seen = min(
            (refine(replace(free, red_cell_um=size), red) for size in sizes),
            key=lambda seen: _apart(seen, view),
        )
        if _apart(seen, view) <= np.log1p(SCALE_TOLERANCE):
            return view, [], False
        finding = f"the {len(red)} red cells detected measure {seen.um_per_px_y:.3g} um per px "
        finding += f"(pixel aspect ratio {seen.pixel_aspect_ratio:.3g})"
        facts = {
            "red_cells": len(red),
            "measured_um_per_px": round(seen.um_per_px_y, 4),
            "used_um_per_px": round(view.um_per_px_y, 4),
        }
        # A folder's scale rests on hundreds of cells; one field of rouleaux must not move it.
        # What a file states of itself may be of another objective, or of the size before.
        of_file = view.scale_source == "metadata" and prior.um_per_px is None
        if view.scale_source in (*PROVIDED, "pooled") and not of_file:
            kept = f"the {_KEPT[view.scale_source]} {view.um_per_px_y:.3g}"
            conflict = issue(issue_codes.SCALE_CONFLICT, f"{finding}, {kept} is used", **facts)
            return view, [conflict], False
        used = refine(free if of_file else view, red)
        was = f"instead of {view.um_per_px_y:.3g} ({view.pixel_aspect_ratio:.3g})"
        message = f"{finding} {was}: the field was analysed again at that scale"
        facts["used_um_per_px"] = round(used.um_per_px_y, 4)
        corrected = issue(issue_codes.SCALE_CORRECTED, message, **facts)
        # This supersedes issues about the scale from outlines.
        stated = metadata_conflict(prior, used.um_per_px_y, used.pixel_aspect_ratio)
        return replace(used, issues=(), ruler="detector"), [corrected, *stated], True

    def _closer_view(
        self, image: Pixels, view: CanonicalView, found: Detections, clock: StageTimer
    ) -> tuple[CanonicalView, list[Issue]] | None:
        """Return the view of a close-up, and issues; else `None`.

        A field that one cell fills shows too few red cells to measure, so it gets the scale of its
        folder, or one that is assumed, at which it is many times too large to be found. Where much
        of a field is not explained at such a scale, closer ones are tried. The best is that at
        which the red cells found have the size of red cells; where there are too few of them, that
        at which the cell is found most surely. The scale of a close-up is only roughly known, so
        that its source is `assumed`.
        """
        ruler = self.bundle.manifest.roles.ruler
        if view.scale_source not in ("pooled", "assumed") or ruler is None:
            return None
        if len(self._sure_red_cells(found)) >= MIN_RED_CELLS:
            return None
        if self._explained(image, view, found) >= UNEXPLAINED:
            return None
        tried = []
        for factor in CLOSER:
            near = _enlarged(view, factor)
            seen, _, _ = self._detect(image, near, clock)
            scores = seen.scores[seen.type_ids == self._kind(self.classified)]
            if len(scores) and self._explained(image, near, seen) >= EXPLAINED_CLOSE_UP:
                off = red_cell_enlargement(near, self._sure_red_cells(seen))
                agrees = off is not None and abs(np.log(off)) < np.log(SAME_SIZE)
                near = _enlarged(near, off) if off is not None and agrees else near
                tried.append((agrees, float(scores.max()), near))
        if not tried:
            return None
        near = max(tried, key=lambda one: one[:2])[2]
        scale = f"{_ORIGIN[view.scale_source]} {view.um_per_px_y:.3g} um per px"
        message = (
            f"a close-up: at the {scale} hardly anything is found, at about "
            f"{near.um_per_px_y:.2g} a cell that fills the field"
        )
        facts = {f"{view.scale_source}_um_per_px": round(view.um_per_px_y, 4)}
        facts["used_um_per_px"] = round(near.um_per_px_y, 4)
        unknown = issue(
            issue_codes.SCALE_ASSUMED, "the scale of a close-up is only roughly known; not counted"
        )
        corrected = issue(issue_codes.SCALE_CORRECTED, message, **facts)
        return replace(near, issues=()), [corrected, unknown]

    def _explained(self, image: Pixels, view: CanonicalView, found: Detections) -> float:
        """Share of the foreground on certain cells; 1 for empty glass."""
        least = np.array([self._reference_from(kind) for kind in self.kinds])
        sure = found.boxes[found.scores >= least[found.type_ids]]
        none = found.boxes[:0]
        score = film_score(image, view, sure, none, none)
        return 1.0 if score.empty else score.explained

    def _kind(self, name: str) -> int:
        """The place of an object type in the graph's output."""
        return self.kinds.index(name)

    def _compare(
        self,
        image: Pixels,
        view: CanonicalView,
        found: Detections,
        red_cell: Floats | None = None,
    ) -> tuple[Detections, Floats]:
        """Compare nucleated cells with the red cells around them; drop those below the threshold.

        Returns the detections left, and the stain contrast of each, NaN where nothing is known.
        Classification can only lower a score, so dropped detections need not be classified.
        """
        contrasts = np.full(len(found), np.nan)
        which = np.flatnonzero(found.type_ids == self._kind(self.classified))
        if not len(which):
            return found, contrasts
        if self.fixed_input is None:
            contrasts[which] = self._contrasts(image, view, found, which, red_cell)
        scores = found.scores.copy()
        scores[which] = self.weights.before_verification(scores[which], contrasts[which])
        keep = np.ones(len(found), dtype=bool)
        lowest = min(self.thresholds[self.classified], self.spec.thresholds[self.classified])
        keep[which] = scores[which] >= lowest
        return replace(found, scores=scores).take(keep), contrasts[keep]

    def _contrasts(
        self,
        image: Pixels,
        view: CanonicalView,
        found: Detections,
        which: NDArray[np.intp],
        red_cell: Floats | None,
    ) -> Floats:
        """Return the stain contrasts of the detections `which`, NaN where nothing is known."""
        boxes, red = found.boxes[which], self._sure_red_cells(found)
        # Detections that may also be nucleated cells are no reference for red cells.
        likely = boxes[found.scores[which] >= self._reference_from(self.classified)]
        if len(red) and len(likely):
            red = red[iou(red, likely).max(axis=1) < LONE_IOU]
        even = view.corrections.apply(image)
        if red_cell is not None:
            return contrast_to(even, view.white_point, boxes, red_cell)
        certain = found.scores[which] >= self._reference_from(self.classified)
        seen = stain_contrast(even, view.white_point, boxes, red, certain)
        return np.full(len(which), np.nan) if seen is None else seen

    def _reference_from(self, name: str) -> float:
        """The score from which detections of a type bear on others.

        It is the detector's own score that counts here. Never below the bundle's own threshold,
        where that is one of the detector: what only a lower one lists must not change what is found
        above it.
        """
        fused = name == self.classified and self.spec.fusion is not None
        return max(self.spec.vote_thresholds[name], 0.0 if fused else self.spec.thresholds[name])

    def _sure_red_cells(self, found: Detections) -> Floats:
        """Return boxes (n, 4) of red cells above the bundle's own threshold."""
        ruler = self.bundle.manifest.roles.ruler
        if ruler is None:
            return found.boxes[:0]
        sure = found.scores >= self._reference_from(ruler)
        return found.boxes[(found.type_ids == self._kind(ruler)) & sure]

    def _classify_cells(
        self,
        image: Pixels,
        view: CanonicalView,
        found: Detections,
        clock: StageTimer,
        classifier: CellClassifier,
        film: FilmNaming,
    ) -> dict[int, CellClassification]:
        """Classify the nucleated cells in batches; results by index in `found`."""
        which = np.flatnonzero(found.type_ids == self._kind(self.classified))
        classified_cells: dict[int, CellClassification] = {}
        if not len(which):
            return classified_cells
        for batch in self._batches(which, found.scores[which]):
            with clock("crop"):
                crops = classifier.crops(view, image, centres(found.boxes[batch]))
            with clock("read"):
                classified_cells.update(
                    zip(
                        batch.tolist(),
                        classifier.classify(self._classifier_session, crops, film),
                        strict=True,
                    )
                )
        return classified_cells

    def classify(self, crops: Pixels) -> list[CellClassification]:
        """Classify any number of crops (n, size, size, 3) as `CellClassifier.crops` makes them."""
        parts = batches(crops, CLASSIFIER_BATCH)
        return [
            classified
            for part in parts
            for classified in self.classifier.classify(self._classifier_session, part)
        ]

    def probability(self, label: str, classified: CellClassification) -> float:
        """Return the probability of a node of the taxonomy according to a classification."""
        below = self.bundle.taxonomy.leaves_under(label)
        return sum(classified.probabilities.get(leaf, 0.0) for leaf in below)

    def _batches(self, which: NDArray[np.intp], scores: Floats) -> Iterator[NDArray[np.intp]]:
        """Split cells into batches of nearly equal size: a batch of one cell is slow per cell.

        Cells reported at every threshold are not mixed with others: in a quantised graph, or with
        a batch-dependent order of summation, other cells could change the last digits.
        """
        certain = scores >= self.spec.thresholds[self.classified]
        for group in (which[certain], which[~certain]):
            yield from batches(group, CLASSIFIER_BATCH)

    def _confirm(
        self, found: Detections, classified_cells: dict[int, CellClassification]
    ) -> tuple[NDArray[np.bool_], Floats]:
        """Weigh nucleated cells by stain and classifier, settle conflicts: return kept, scores.

        One that the classifier names as something else, a giant platelet or a stain deposit, has no
        precedence: the red cell or platelet that the detector also sees there stays beside it.
        """
        scores = found.scores.copy()
        for i, classified in classified_cells.items():
            if classified.nucleated is not None:
                scores[i] = self.weights.verified(float(scores[i]), classified.nucleated)
        lowest = np.array([self.thresholds[name] for name in self.kinds])
        reported = np.flatnonzero(scores >= lowest[found.type_ids])
        weighed = replace(found, scores=scores).take(reported)
        sure = np.array([self.spec.thresholds[name] for name in self.kinds])[weighed.type_ids]
        tree = self.bundle.taxonomy
        otherwise = {
            i for i, c in classified_cells.items() if not tree.is_under(c.label, self.classified)
        }
        named = np.array([i not in otherwise for i in reported.tolist()], dtype=bool)
        keep = np.zeros(len(found), dtype=bool)
        precedence = (weighed.scores >= sure) & named
        stay = cross_class_nms(weighed, self._kind(self.classified), precedence)
        keep[reported[stay]] = True
        return keep, scores

    def _shapes(
        self,
        image: Pixels,
        view: CanonicalView,
        found: Detections,
        which: NDArray[np.intp],
        clock: StageTimer,
    ) -> dict[int, CellShape]:
        """Outline the classified cells among `which`; shapes by index in `found`."""
        cells = which[found.type_ids[which] == self._kind(self.classified)]
        if self._outliner is None or not len(cells):
            return {}
        outlined: dict[int, CellShape] = {}
        # As in `_batches`: cells below the threshold do not share a batch with those above it.
        certain = found.scores[cells] >= self.spec.thresholds[self.classified]
        for group in (cells[certain], cells[~certain]):
            if len(group):
                with clock("outline"):
                    shapes = self._outliner.outline(view, image, found.boxes[group])
                pairs = zip(group.tolist(), shapes, strict=True)
                outlined |= {i: shape for i, shape in pairs if shape is not None}
        return outlined

    def _settled_box(self, detected: Sequence[float], shape: CellShape | None) -> Box:
        x, y, w, h = detected
        box = x, y, w, h
        return box if self._outliner is None else self._outliner.settled_box(box, shape)

    def _cells(
        self,
        view: CanonicalView,
        found: Detections,
        contrasts: Floats,
        classified_cells: dict[int, CellClassification],
        which: NDArray[np.intp],
        shapes: dict[int, CellShape],
    ) -> Iterator[CellResult]:
        um_x, um_y = view.um_per_px_x, view.um_per_px_y
        chosen, contrasts = found.take(which), contrasts[which]
        # A field has a hundred: as lists they are several times as fast to go through.
        columns = (
            which,
            chosen.boxes,
            chosen.scores,
            chosen.type_ids,
            contrasts,
            self.weights.reads_as_red_cell(contrasts),
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for i, detected, score, kind, contrast, like_red in rows:
            name = self.kinds[kind]
            classified = classified_cells.get(i) or CellClassification(name, score)
            shape = shapes.get(i)
            box = self._settled_box(detected, shape)
            if shape is not None:
                classified = self.classifier.with_shape(classified, shape)
            unmeasured = self.classifier.lacks_measures(classified, shape)
            at_edge = touches_edge(box, view.width, view.height)
            disc = view.round_field
            at_edge = at_edge or (disc is not None and disc.cuts(box))
            yield CellResult(
                box=box,
                confidence=score,
                object_type=name,
                label=classified.label,
                label_confidence=classified.label_score,
                probabilities=classified.probabilities,
                attributes=classified.attributes,
                issues=(
                    *cell_issues(classified, at_edge, like_red, contrast),
                    *([ATTRIBUTES_ALONE] if unmeasured else []),
                ),
                diameter_um=(box[2] * um_x + box[3] * um_y) / 2,
                nucleated_probability=classified.nucleated,
                stain_contrast=_finite(contrast),
                shape=shape,
            )


@dataclass(frozen=True)
class PartOfSlide:
    """What was found in a part of a slide.

    Attributes:
        cells: in px of the part.
        sharpness: of its canonical view; `None` for empty glass.
        film_score: evidence for a blood film; `None` for empty glass.
        left_out: detections below the threshold that were left out.
    """

    cells: list[CellResult]
    sharpness: float | None
    film_score: FilmScore | None
    left_out: int


def _enlarged(view: CanonicalView, factor: float) -> CanonicalView:
    """Return a view of the same pixels whose things are so many times larger, scale assumed."""
    return replace(view.enlarged(factor), scale_source="assumed")


def _apart(one: CanonicalView, other: CanonicalView) -> float:
    """Return how far two views' scales are apart along x or y, natural logarithm."""
    across = np.log(one.um_per_px_x / other.um_per_px_x)
    return float(max(abs(across), abs(np.log(one.um_per_px_y / other.um_per_px_y))))


_KEPT = {"user": "provided", "metadata": "image metadata's", "pooled": "pooled"}


def _check_figures(bundle: Bundle, films: FilmStatistics | None) -> None:
    """Refuse a bundle that rests on other figures than this program measures."""
    if films is not None and films.features != FEATURES:
        raise BundleError(
            f"{bundle.path}: describes its training films by other figures than this program; "
            "use a bloodfilm that matches the bundle"
        )
    measured = bundle.manifest.classifier.measured
    if measured is not None and measured.measures != MEASURES:
        raise BundleError(
            f"{bundle.path}: its attributes follow other measures than this program takes; "
            "use a bloodfilm that matches the bundle"
        )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _in_order(found: Detections) -> Detections:
    """By position: top to bottom, then left to right; ties by type and score.

    Rounded to 0.1 pixel, so that the order does not depend on floating-point noise.
    """
    x, y = found.boxes[:, :2].round(1).T
    return found.take(np.lexsort((-found.scores, found.type_ids, x, y)))
