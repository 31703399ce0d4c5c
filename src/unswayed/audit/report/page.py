"""Pages as single HTML files without outside parts."""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Any

from unswayed.audit.report.numbers import typeset

# The pages' only script: what is folded in is printed too, but for the long lists.
SCRIPT = (
    "addEventListener('beforeprint',"
    "()=>document.querySelectorAll('details:not(.long)').forEach(d=>{d.open=true}))"
)


def render(template: str, view: dict[str, Any]) -> str:
    """A page from its template and formatted view data."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    page = _environment().get_template(template)
    return page.render(view, script=SCRIPT, script_hash=f"sha256-{digest}")


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unswayed", "audit/report/templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["typeset"] = typeset
    return environment
