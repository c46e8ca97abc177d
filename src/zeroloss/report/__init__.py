"""The report: a finished study as one self-contained HTML file."""

from zeroloss.report.page import write_report

__all__ = ["write_report"]
