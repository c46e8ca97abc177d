"""The report: a finished study as one self-contained page."""

from __future__ import annotations

from pathlib import Path

from zeroloss.study import StudyResult

__all__ = ["write_report"]


def write_report(result: StudyResult, folder: Path | str) -> Path:
    """Write ``report.html`` into a run folder, all of it or none; the same result gives the same bytes.

    Args:
        result: a finished study.
        folder: its run folder, made where it is missing.

    Returns:
        The file: HTML with its style and figures inside, which asks nothing of any network.

    Raises:
        FileError: where the file cannot be written.

    Example:
        >>> import tempfile
        >>> from zeroloss.study.result import DataSummary
        >>> from zeroloss.study.specification import Study
        >>> data = DataSummary("digits", "", 2, 64, 1, ("3", "8"), (1, 1), 0.5, (0.5, 0.5), (), (), 0.0)
        >>> result = StudyResult(Study(), data, (), (), "Nothing was trained.", {}, {})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_report(result, folder)
        ...     path.name, path.read_text(encoding="utf-8")[:15]
        ('report.html', '<!doctype html>')
    """
    from zeroloss.report.page import write_page  # matplotlib and jinja2 take half a second that few calls need

    return write_page(result, folder)
