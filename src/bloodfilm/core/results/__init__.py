"""The results of an analysis: cells, fields, cases, runs; reading and writing `result.json`."""

from bloodfilm.core.results.case import CaseCell, CaseResult, CellView, FieldPlacement
from bloodfilm.core.results.cell import AttributeResult, CellResult, with_ids
from bloodfilm.core.results.field import FieldFailure, FieldOutcome, FieldResult, ImageRef
from bloodfilm.core.results.model import ModelInfo
from bloodfilm.core.results.run import RESULT_FILE, RESULT_SCHEMA, UNFINISHED_FILE, AnalysisRun
from bloodfilm.core.results.shape import CellShape
from bloodfilm.core.results.slide import SlideRecord
from bloodfilm.core.results.stored import ParsedFields, StoredFields, json_line

__all__ = [
    "RESULT_FILE",
    "RESULT_SCHEMA",
    "UNFINISHED_FILE",
    "AnalysisRun",
    "AttributeResult",
    "CaseCell",
    "CaseResult",
    "CellResult",
    "CellShape",
    "CellView",
    "FieldFailure",
    "FieldOutcome",
    "FieldPlacement",
    "FieldResult",
    "ImageRef",
    "ModelInfo",
    "ParsedFields",
    "SlideRecord",
    "StoredFields",
    "json_line",
    "with_ids",
]
