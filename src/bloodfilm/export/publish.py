"""Two training runs to one bundle: load, calibrate on validation data, prove, write, describe."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from bloodfilm.core.errors import BundleError, ConfigError, DataError
from bloodfilm.core.files import regular_file, write_text
from bloodfilm.core.json_text import read_json_file
from bloodfilm.evaluation.confusion_correction import ClassConfusion
from bloodfilm.export.card import CARD, model_card, summarize_evaluation
from bloodfilm.export.film_graph import add_film_offset
from bloodfilm.export.manifest_writer import (
    CLASSIFIER_FILE,
    DETECTOR_FILE,
    BundleInfo,
    build_manifest,
    refuse_other_content,
)
from bloodfilm.export.onnx_graphs import classifier_onnx, detector_onnx
from bloodfilm.export.operating_point import set_operating_point
from bloodfilm.export.parity import crop_parity, detector_parity
from bloodfilm.export.quantize import quantize_bundle
from bloodfilm.export.threshold import set_threshold
from bloodfilm.export.trained import (
    BundledClassifier,
    BundledDetector,
    IntendedUse,
    TrainedClassifier,
    TrainedDetector,
    open_classifier,
    open_detector,
    validation_fields,
)
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.manifest import MANIFEST, ConformalSpec, LookAgainSpec, read_manifest
from bloodfilm.training.calibration import ClassCalibration

ANY_USE = IntendedUse()


def export_bundle(
    detector_run: Path,
    classifier_run: Path,
    root: Path,
    out: Path,
    info: BundleInfo,
    *,
    int8: bool = False,
    use: IntendedUse = ANY_USE,
) -> dict[str, float]:
    """Export a detector's and a classifier's run as a bundle.

    Args:
        detector_run, classifier_run: folders of the two trainings. In place of one of them a bundle
            can be given: its network is taken over byte for byte. The detector's threshold is
            chosen anew, for the classifier verifies what it finds.
        root: where the runs' data paths start.
        out: the bundle's folder; an existing bundle there is replaced, anything else is refused.
        info: name, licence, notes and evaluation results (see `read_evaluations`).
        int8: store the networks in eight-bit integers.
        use: what is known of the films it will meet.

    Returns:
        the largest differences between torch and ONNX Runtime.

    Raises:
        ConfigError: where a run is missing or of the wrong task.
        BundleError: if the graphs differ.
    """
    detector = open_detector(detector_run, root)
    validation = validation_fields(detector_run, root)
    classifier = open_classifier(classifier_run, root, use)
    parity = write_bundle(out, detector, classifier, info)
    try:
        if int8:
            images = None if isinstance(detector, BundledDetector) else detector.probes
            crops = None if isinstance(classifier, BundledClassifier) else list(classifier.probes)
            parity |= quantize_bundle(out, images, crops)
        if isinstance(classifier, TrainedClassifier) and classifier.graph.model.follows_film:
            parity["film"] = add_film_offset(out, classifier.graph.model, classifier.probes)
    finally:  # a refused eight-bit form leaves a whole float bundle
        if use.operating_point is None:
            set_threshold(out, validation)
        else:
            set_operating_point(out, use.operating_point, root)
        write_text(out / CARD, model_card(load_bundle(out).manifest, info.notes))
    return parity


def write_bundle(
    out: Path,
    detector: TrainedDetector | BundledDetector,
    classifier: TrainedClassifier | BundledClassifier,
    info: BundleInfo,
) -> dict[str, float]:
    """Write graphs and manifest, after proving that both graphs compute what torch does.

    Args:
        out: the folder; an existing bundle there is replaced, anything else is refused.
        detector, classifier: the trained networks.
        info: name, licence, evaluation results.

    Returns:
        the largest differences between torch and ONNX Runtime.

    Raises:
        BundleError: if they differ by more than rounding; nothing is written then.
        ConfigError: if `out` holds something that is not a bundle.
    """
    refuse_other_content(out)
    graphs: dict[str, bytes] = {}
    parity: dict[str, float] = {}
    for part in (detector, classifier):
        if isinstance(part, BundledDetector | BundledClassifier):
            parity |= part.manifest.metrics.get("parity", {})
    if isinstance(classifier, BundledClassifier):
        graphs[CLASSIFIER_FILE] = classifier.onnx
    else:
        crops = classifier.probes
        graphs[CLASSIFIER_FILE] = classifier_onnx(classifier.graph, torch.from_numpy(crops[:2]))
        parity |= crop_parity(classifier.graph, graphs[CLASSIFIER_FILE], crops, CLASSIFIER_FILE)
    if isinstance(detector, BundledDetector):
        graphs[DETECTOR_FILE] = detector.onnx
    else:
        image = torch.from_numpy(detector.probes[0][None])
        graphs[DETECTOR_FILE] = detector_onnx(detector.graph, image)
        parity |= detector_parity(
            detector.graph, graphs[DETECTOR_FILE], detector.probes, detector.thresholds
        )
    before = _files(out)
    manifest = build_manifest(detector, classifier, info, graphs, parity)
    if isinstance(classifier, BundledClassifier) and classifier.exemplars is not None:
        spec = classifier.manifest.exemplars
        assert spec is not None
        manifest, graphs[spec.file] = manifest.with_exemplars(spec), classifier.exemplars
    manifest.write(out, graphs)
    for name in before - set(graphs):  # of the bundle that was replaced
        (out / name).unlink(missing_ok=True)
    return parity


def _files(bundle: Path) -> set[str]:
    """Return the names of a bundle's graphs and exemplars; none where no bundle can be read."""
    try:
        data = regular_file(bundle / MANIFEST).read_bytes()
        manifest = read_manifest(data, str(bundle / MANIFEST))
    except (OSError, BundleError, DataError):
        return set()
    return set(manifest.files)


def read_evaluations(paths: Iterable[Path]) -> dict[str, Any]:
    """Read JSON results of `bloodfilm evaluate`; return what a manifest keeps, by file name.

    Raises:
        ConfigError: if a file is missing or something else.
    """
    return {path.stem: summarize_evaluation(_read_json(path)) for path in paths}


def read_calibration(path: Path) -> ClassCalibration:
    """Read the `calibration` that a benchmark on sites left out wrote.

    Raises:
        ConfigError: if the file is missing or holds none.
    """
    data = _read_json(path)
    said = data.get("calibration")
    try:
        if not isinstance(said, dict):
            raise TypeError("not an object")
        metrics = {str(k): float(v) for k, v in said["metrics"].items()}
        temperature, confidence = float(said["temperature"]), float(said["confidence"])
        attributes = {str(k): float(v) for k, v in said.get("attribute_temperatures", {}).items()}
        least = said.get("attribute_confidence")
        least = None if least is None else float(least)
        sets, confusion = data.get("conformal"), data.get("confusion")
        conformal = None if sets is None else ConformalSpec.model_validate(sets)
        again = data.get("look_again")
        look_again = None if again is None else LookAgainSpec.model_validate(again)
        if confusion is not None:
            confusion = ClassConfusion.from_json(confusion).to_json()
    except DataError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(
            f"{path}: holds no calibration (temperature, confidence, metrics); the benchmark that "
            "leaves sites out writes one"
        ) from None
    for t, c in ((temperature, confidence), *((t, least or 0.0) for t in attributes.values())):
        if not (t > 0 and 0 <= c <= 1):
            raise ConfigError(
                f"{path}: temperature {t:g} must be above 0, confidence {c:g} between 0 and 1"
            )
    return ClassCalibration(
        temperature, confidence, metrics, attributes, least, conformal, confusion, look_again
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = read_json_file(path)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds no record of results")
    return data
