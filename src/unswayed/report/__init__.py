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

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.flips import grouped
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.summary import analyze, read_summary
from unswayed.display.numbers import duration
from unswayed.display.page import write_reports
from unswayed.report.run_page import run_view
from unswayed.report.tables import result_table

__all__ = ["duration", "finished_audit", "result_table", "write_report"]


def finished_audit(arguments: AuditArguments, again: bool = True) -> Path:
    """The run directory of an audit, with summary and report.

    Args:
        again: make a summary that is there anew.

    Raises:
        InputError: as `run_audit`.
    """
    out = run_audit(arguments)
    if again or not (out / "summary.json").exists():
        analyze(out)
    write_report(out)
    return out


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
