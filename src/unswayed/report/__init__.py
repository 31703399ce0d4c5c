"""A run's report: `report.md` and one self-contained `report.html`, drawn from `summary.json`.

numbers    numbers and foreign words as text
words      what things are called, and sentences that explain them
tables     formatted rows, and the table for the command line
flips      which answers flip
methods    what was done, in sentences
plots      where things stand on axes, how dark cells are
run_page, items, grid, models_page    view data; templates/ only draws it
markdown   report.md
page       view data and template to HTML

Numbers are formatted in one place, so that the command line, the Markdown and the pages show the
same.
"""

from __future__ import annotations

from pathlib import Path

from unswayed.audit.flips import grouped
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.summary import read_summary
from unswayed.display.numbers import duration
from unswayed.display.page import write_reports
from unswayed.report.run_page import run_view
from unswayed.report.tables import result_table

__all__ = ["duration", "result_table", "write_report"]


def write_report(out: Path) -> Path:
    """Write report.md and report.html of a run with its summary; returns the page's path.

    Raises:
        InputError: `out` is no complete run, its files are damaged, or it has no summary.
    """
    run, answers = read_run(out), grouped(read_answers(out).to_pandas())
    view = run_view(run, answers, read_summary(out))
    templates = {"report.md": "run.md.jinja", "report.html": "run.html.jinja"}
    write_reports(out, "unswayed.report", view, templates)
    return out / "report.html"
