"""Results for people and for spreadsheets: the HTML report, tables and annotated pictures."""

from bloodfilm.report.html.report import write_report

__all__ = ["write_report"]
