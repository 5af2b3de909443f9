"""Results for people and for spreadsheets: the HTML report, tables and annotated pictures."""

from bloodfilm.report.html import write_report

__all__ = ["write_report"]
