"""What is wrong with a data set: checks of labels and images, and its statistics."""

from bloodfilm.audit.codes import CODES
from bloodfilm.audit.run_checks import Options, audit
from bloodfilm.audit.source import AnnotationSource, open_source
from bloodfilm.core.findings import Finding

__all__ = ["CODES", "AnnotationSource", "Finding", "Options", "audit", "open_source"]
