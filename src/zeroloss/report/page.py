"""The page: a finished study written out as one HTML file that needs nothing else."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from zeroloss.errors import FileError
from zeroloss.report import format as text
from zeroloss.report import words
from zeroloss.report.figures import nearest_figure, network_figures
from zeroloss.study.result import StudyResult
from zeroloss.training import replace_file


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
        >>> data = DataSummary("digits", 2, 64, 1, ("3", "8"), (1, 1), 0.5, (0.5, 0.5), (), (), 0.0)
        >>> result = StudyResult(Study(), data, (), (), "Nothing was trained.", {}, {})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_report(result, folder)
        ...     path.name, path.read_text(encoding="utf-8")[:15]
        ('report.html', '<!doctype html>')
    """
    path = Path(folder) / "report.html"
    page = render(result).encode("utf-8", "replace")
    try:
        replace_file(path, page)
    except OSError as error:
        raise FileError(path, f"cannot be written ({error.strerror})", "name a folder that you may write to") from error
    return path


def render(result: StudyResult) -> str:
    """The page as text.

    Args:
        result: a finished study.

    Returns:
        A whole HTML document.
    """
    room = files("zeroloss.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        number=text.number,
        integer=text.integer,
        forecast=text.forecast_steps,
        interval=text.interval,
        percent=text.percent,
        plural=text.plural,
        width=words.width,
        describe=words.describe,
    )
    template = environment.from_string(room.joinpath("template.html").read_text(encoding="utf-8"))
    return template.render(
        result=result,
        style=Markup(room.joinpath("style.css").read_text(encoding="utf-8")),
        headline=words.headline(result),
        tally=words.tally(result.verdicts),
        statuses=words.STATUSES,
        judgements=words.JUDGEMENTS,
        histogram=nearest_figure(result.data),
        sections=[(network, network_figures(network, result.study.training.until)) for network in result.networks],
    )
