"""Pages as single HTML files without outside parts, and Markdown, from templates."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unswayed.core.files import write_text
from unswayed.display.numbers import markdown_text, typeset
from unswayed.display.tables import markdown_table

# The pages' only script: what is folded in is printed too, but for the long lists.
SCRIPT = (
    "addEventListener('beforeprint',"
    "()=>document.querySelectorAll('details:not(.long)').forEach(d=>{d.open=true}))"
)


def render(room: str, template: str, view: dict[str, Any]) -> str:
    """A page from formatted view data.

    Args:
        room: package whose `templates/` holds the page's template; it may extend and import those
            of this package.
        template: the file's name.
    """
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    page = _environment(room).get_template(template)
    return page.render(view, script=SCRIPT, script_hash=f"sha256-{digest}")


def render_markdown(room: str | Path, template: str, view: dict[str, Any]) -> str:
    """A Markdown text from formatted view data, which is not escaped; arguments as in `render`,
    but `room` may be a folder of templates."""
    return _environment(room, html=False).get_template(template).render(view)


def render_report(room: str | Path, template: str, view: dict[str, Any]) -> str:
    """As `render_markdown`, with one empty line between blocks, however many there were."""
    text = render_markdown(room, template, view)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def sections(room: str, template: str, view: dict[str, Any]) -> list[tuple[str, str]]:
    """(heading, text in one line) of each `{% call section(heading) %}` in a template.

    Arguments as in `render`; nothing is escaped.
    """
    parts: list[tuple[str, str]] = []

    def section(heading: str, caller: Callable[[], str]) -> str:
        parts.append((heading, re.sub(r"\s*\n\s*", " ", caller().strip())))
        return ""

    render_markdown(room, template, view | {"section": section})
    return parts


def write_reports(
    out: Path,
    room: str,
    view: dict[str, Any],
    templates: Mapping[str, str],
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write files drawn from templates, and others; all are made before the first is written.

    Args:
        templates: name of a file, .md or .html -> template of the room.
        texts: name of another file -> content.
    """
    files = dict(texts or {})
    for name, template in templates.items():
        draw = render if name.endswith(".html") else render_report
        files[name] = draw(room, template, view)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_text(out / name, content)


@functools.cache
def _environment(room: str | Path, html: bool = True) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.FileSystemLoader(room)
                if isinstance(room, Path)
                else jinja2.PackageLoader(room),
                jinja2.PackageLoader("unswayed.display"),
            ]
        ),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
    )
    filters = (typeset, markdown_text, markdown_table)
    environment.filters |= {function.__name__: function for function in filters}
    return environment
