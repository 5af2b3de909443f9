"""Results for people and for spreadsheets: the HTML report, tables and annotated pictures."""
