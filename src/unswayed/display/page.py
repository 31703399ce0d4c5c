"""Pages as single HTML files without outside parts, and Markdown, from templates."""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Any

from unswayed.display.numbers import typeset

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


def render_markdown(room: str, template: str, view: dict[str, Any]) -> str:
    """A Markdown text from formatted view data, which is not escaped; arguments as in `render`."""
    return _environment(room, html=False).get_template(template).render(view)


@functools.cache
def _environment(room: str, html: bool = True) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(room), jinja2.PackageLoader("unswayed.display")]
        ),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["typeset"] = typeset
    return environment
