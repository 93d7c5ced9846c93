"""A report as one page of HTML: no script, nothing from a network, light or dark, fit for printing.

    check_target(path)          # before anything is measured
    write(path, page_declared)  # whole, or not at all

page.html has the elements, page.css the looks, svg.py the drawings. Every text that enters the template is escaped, and
what would move text about (control characters, marks of direction) is spelled out.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from modelsurgeon.errors import OutputError
from modelsurgeon.reports import svg
from modelsurgeon.reports.blocks import Page, phrases
from modelsurgeon.text import shown

HERE = Path(__file__).parent
MARK = '<meta name="generator" content="modelsurgeon">'  # of a report, which another report may replace
BEGINNING = 4096  # characters of a page within which the mark is


def rendered(page: Page) -> str:
    """The whole page."""
    style = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return _environment().get_template("page.html").render(page=page, style=style).lstrip()


def write(path: Path, page: Page) -> None:
    """Write the page, whole or not at all. Raises OSError where the disk fails."""
    text = rendered(page)
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        with open(temporary, "x", encoding="ascii", errors="xmlcharrefreplace") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Raise OutputError where no report can be written, or where it would replace a file that is not a report."""
    try:
        if not path.parent.is_dir():
            raise OutputError(f"--report {path}: no folder {path.parent}; make it first")
        if path.exists() and not path.is_file():
            raise OutputError(f"--report {path}: exists and is no file; name one, as in report.html")
        if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")[:BEGINNING]:
            raise OutputError(f"--report {path}: exists and is no report; name another file")
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}."):
            pass
    except OSError as error:
        raise OutputError(f"--report {path}: cannot be written ({error.strerror}); name another place") from None


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters |= {"phrases": phrases, "drawn": svg.draw, "legend": svg.legend}
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment
