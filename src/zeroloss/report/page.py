"""The page: a finished study written out as one HTML file that needs nothing else."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from zeroloss.claims import CLAIMS
from zeroloss.errors import FileError
from zeroloss.report import format as text
from zeroloss.report import words
from zeroloss.report.figures import nearest_figure, network_figures
from zeroloss.study.result import StudyResult
from zeroloss.training import replace_file


def write_page(result: StudyResult, folder: Path | str) -> Path:
    """Write the page; see :func:`zeroloss.write_report`, which loads this module when it is first needed."""
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
        claims={claim.id: claim for claim in CLAIMS},
        result=result,
        style=Markup(room.joinpath("style.css").read_text(encoding="utf-8")),
        headline=words.headline(result),
        tally=words.tally(result.verdicts),
        statuses=words.STATUSES,
        judgements=words.JUDGEMENTS,
        histogram=nearest_figure(result.data),
        sections=[(network, network_figures(network, result.study.training.until)) for network in result.networks],
    )
