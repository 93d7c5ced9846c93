"""What every page is made with: templates that escape all that is put in, and a file that is whole or not there.

    text = rendered("verification.html", d=document)
    check_target(path)          # before anything is measured
    write_page(path, text)

Each document has a template of its own; parts.html, page.css and charts are shared. Names in a document come from
files that a stranger may have written: what may move text about is spelled out, and everything is escaped.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from modelsurgeon.errors import OutputError
from modelsurgeon.text import number, shown

HERE = Path(__file__).parent
MARK = '<meta name="generator" content="modelsurgeon">'  # tells a report, which another one may replace
BEGINNING = 4096  # characters of a page in which it stands


def rendered(template: str, **values: Any) -> str:
    """A template, filled in; `style` is the common sheet, unless `values` bring one of their own."""
    style = values.pop("style", stylesheet())
    return _environment().get_template(template).render(style=style, **values).lstrip()


def stylesheet(*more: Path) -> Markup:
    """The common style sheet, and others after it."""
    return Markup("").join(Markup(path.read_text(encoding="utf-8")) for path in (HERE / "page.css", *more))


def spelled(text: str | None) -> Markup:
    """Several lines of text, each as it is."""
    return Markup("\n").join(map(shown, (text or "").split("\n")))


def check_target(path: Path) -> None:
    """Raise OutputError where no report can be written, or where something else than a report would be lost."""
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


def write_page(path: Path, text: str) -> None:
    """Write the page, whole or not at all. Raises OSError where the disk does not take it."""
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        with open(temporary, "x", encoding="ascii", errors="xmlcharrefreplace") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=plain,
    )
    environment.filters["number"] = number
    return environment


def plain(value: Any) -> Any:
    """What may move text about (control characters, marks of direction) is spelled out; nothing stands for none."""
    if isinstance(value, Markup):
        return value
    return shown(value) if isinstance(value, str) else "" if value is None else value
