"""The manifest of a bundle, built from two trained networks."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bloodfilm import __version__
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import regular_file
from bloodfilm.core.locks import is_empty
from bloodfilm.evaluation.confusion_correction import METRIC
from bloodfilm.export.trained import (
    BundledClassifier,
    BundledDetector,
    TrainedClassifier,
    TrainedDetector,
)
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.inference.manifest import (
    FORMAT,
    MANIFEST,
    VERSION,
    ClassifierSpec,
    DetectorSpec,
    Manifest,
    ObjectRoles,
    UntrainedParts,
)
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.tasks.detector import MULTIPLE, NMS_IOU
from bloodfilm.training.vocabulary import Vocabulary

TILE, OVERLAP = 1024, 160
DETECTOR_FILE, CLASSIFIER_FILE = "detector.onnx", "classifier.onnx"
RECORDED = {"config", "sources", "domains"}
"""What a manifest keeps of a run's record."""


@dataclass(frozen=True)
class BundleInfo:
    """Metadata of a bundle, given by its authors.

    Attributes:
        name: shown in results.
        licence: of the weights.
        notes: Markdown that ends the model card.
        metrics: results of evaluations, by name.
    """

    name: str = "bloodfilm"
    licence: str = "not stated"
    notes: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _DetectorPart:
    """The part of a manifest that describes its detector."""

    object_types: tuple[str, ...]
    roles: ObjectRoles
    spec: DetectorSpec
    training: Any
    metrics: Any


def _detector_part(detector: TrainedDetector | BundledDetector, graph: bytes) -> _DetectorPart:
    """Return the description of a detector, newly trained or taken from a bundle."""
    if isinstance(detector, BundledDetector):
        manifest = detector.manifest
        spec = {**manifest.detector.model_dump(), "file": DETECTOR_FILE, "sha256": _sha256(graph)}
        return _DetectorPart(
            manifest.object_types,
            manifest.roles,
            DetectorSpec.model_validate(spec),
            manifest.training.get("detector", {}),
            manifest.metrics.get("validation", {}).get("detector", {}),
        )
    spec = {
        "file": DETECTOR_FILE,
        "sha256": _sha256(graph),
        "um_per_px": detector.record.um_per_px,
        "background": BACKGROUND,
        "stride": CellDetector.stride,
        "multiple": MULTIPLE,
        "thresholds": detector.thresholds,
        "vote_thresholds": detector.thresholds,
        "nms_iou": NMS_IOU,
        "tile": TILE,
        "overlap": OVERLAP,
    }
    vocabulary = detector.record.read_vocabulary()
    return _DetectorPart(
        vocabulary.object_types,
        vocabulary.roles,
        DetectorSpec.model_validate(spec),
        detector.record.model_dump(mode="json", include=RECORDED),
        detector.metrics,
    )


@dataclass(frozen=True)
class _ClassifierPart:
    """The part of a manifest that describes its classifier."""

    vocabulary: Vocabulary
    untrained: UntrainedParts
    spec: ClassifierSpec
    training: Any
    priors: Any
    metrics: dict[str, Any]
    confusion: Any = None


def _classifier_part(
    classifier: TrainedClassifier | BundledClassifier, graph: bytes
) -> _ClassifierPart:
    """Return the description of a classifier, newly trained or taken from a bundle."""
    if isinstance(classifier, BundledClassifier):
        manifest = classifier.manifest
        own = {"file": CLASSIFIER_FILE, "sha256": _sha256(graph)}
        validation = manifest.metrics.get("validation", {})
        return _ClassifierPart(
            classifier.vocabulary,
            manifest.untrained,
            ClassifierSpec.model_validate({**manifest.classifier.model_dump(), **own}),
            manifest.training.get("classifier", {}),
            manifest.training.get("priors", {}),
            {name: validation.get(name, {}) for name in ("classifier", "calibration")},
            manifest.metrics.get(METRIC),
        )
    calibration = classifier.calibration
    spec = ClassifierSpec(
        file=CLASSIFIER_FILE,
        sha256=_sha256(graph),
        size=classifier.record.size,
        um_per_px=classifier.record.um_per_px,
        background=BACKGROUND,
        colours=classifier.record.colours,
        verifies=classifier.record.verifies,
        temperatures=calibration.temperatures,
        class_confidence=calibration.class_confidence,
        attribute_confidence=calibration.attribute_confidence,
        novelty_threshold=calibration.novelty_threshold,
        conformal=calibration.conformal,
        look_again=calibration.look_again,
    )
    return _ClassifierPart(
        classifier.record.read_vocabulary(),
        classifier.record.untrained,
        spec,
        classifier.record.model_dump(mode="json", include={"config", "sources"}),
        classifier.priors,
        {"classifier": classifier.metrics, "calibration": calibration.metrics},
        calibration.confusion,
    )


def build_manifest(
    detector: TrainedDetector | BundledDetector,
    classifier: TrainedClassifier | BundledClassifier,
    info: BundleInfo,
    graphs: Mapping[str, bytes],
    parity: Mapping[str, float],
) -> Manifest:
    """Return the manifest of two trained networks.

    Args:
        detector, classifier: the networks; one of them may be another bundle's.
        info: name, licence, evaluation results.
        graphs: ONNX bytes, by `DETECTOR_FILE` and `CLASSIFIER_FILE`.
        parity: largest differences between torch and ONNX Runtime.
    """
    part = _detector_part(detector, graphs[DETECTOR_FILE])
    named = _classifier_part(classifier, graphs[CLASSIFIER_FILE])
    words = _common_vocabulary(part, named.vocabulary)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": info.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": info.licence,
        "taxonomy": words.taxonomy,
        "schema": words.schema,
        "object_types": words.object_types,
        "roles": words.roles,
        "leaves": words.leaves,
        "untrained": named.untrained,
        "detector": part.spec,
        "classifier": named.spec,
        "training": {
            "bloodfilm": __version__,
            "detector": part.training,
            "classifier": named.training,
            "priors": named.priors,
        },
        "metrics": {
            "validation": {
                "detector": part.metrics,
                **named.metrics,
            },
            "parity": {k: float(f"{v:.3g}") for k, v in parity.items()},
            **({} if named.confusion is None else {METRIC: named.confusion}),
            **info.metrics,
        },
    }
    return Manifest.model_validate(content)


def _common_vocabulary(detector: _DetectorPart, classifier: Vocabulary) -> Vocabulary:
    """Return the object types of the detector with the tree and attributes of the classifier.

    Raises:
        ConfigError: if the two do not fit together.
    """
    if detector.roles.classified != classifier.roles.classified:
        raise ConfigError(
            f"export: the detector's cells to name are {detector.roles.classified!r}, the "
            f"classifier names {classifier.roles.classified!r}; train both on one vocabulary"
        )
    absent = [n for n in detector.object_types if n not in classifier.taxonomy]
    if absent:
        raise ConfigError(
            f"export: the detector finds {absent[0]!r}, which is not in the classifier's taxonomy; "
            "train both with the same data.taxonomy"
        )
    words = classifier.taxonomy, classifier.schema, detector.object_types, detector.roles
    return Vocabulary(*words, classifier.other)


def refuse_other_content(out: Path) -> None:
    """Raise `ConfigError` if a folder holds something that is not a bundle."""
    if not out.exists() or (out.is_dir() and is_empty(out)):
        return
    try:
        known = json.loads(regular_file(out / MANIFEST).read_bytes())["format"] == FORMAT
    except (DataError, OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ConfigError(f"{out}: is there and is no bundle; choose another --out")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
