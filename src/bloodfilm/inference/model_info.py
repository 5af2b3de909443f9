"""What results record of a bundle."""

from bloodfilm.core.results import ModelInfo
from bloodfilm.inference.bundle import Bundle


def model_info(bundle: Bundle) -> ModelInfo:
    """Return the record of a bundle that travels with every result."""
    manifest, classifier = bundle.manifest, bundle.manifest.classifier
    return ModelInfo(
        identity=bundle.identity(),
        taxonomy=manifest.taxonomy,
        schema=manifest.attributes,
        object_types=manifest.object_types,
        classified=manifest.roles.classified,
        untrained_classes=manifest.untrained.classes,
        untrained_attributes=manifest.untrained.attributes,
        class_confidence=classifier.class_confidence,
        attribute_confidence=classifier.attribute_confidence,
        reports_unfamiliar=classifier.novelty_threshold is not None,
        crop_um=classifier.size * classifier.um_per_px,
        metrics=manifest.metrics,
        class_coverage=None if classifier.conformal is None else classifier.conformal.coverage,
    )
