"""The self-contained HTML report for review."""
