"""Reports on runs and comparisons: view data, which templates/ draws as Markdown and as pages.

words          what things are called
tables         formatted rows of a summary, and its table for the command line
methods        what was done in a run, and what is needed to do it again
run_page       a run's report.md and report.html; with the parts items and grid
models_page, memories_page    several models, several memories
comparisons    which comparison directories ask for, and its files
checklist      a run judged by a policy: checklist.md and checklist.xml
traces         traces.md
"""

from __future__ import annotations

from pathlib import Path

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.flips import grouped
from unswayed.audit.rules import by_rule
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.summary import analyze, read_summary
from unswayed.core.ranks import ALONE, Ranks
from unswayed.display.numbers import duration
from unswayed.display.page import write_reports
from unswayed.report.run_page import run_view
from unswayed.report.tables import result_table

__all__ = ["duration", "finished_audit", "result_table", "write_report"]


def finished_audit(arguments: AuditArguments, again: bool = True, ranks: Ranks = ALONE) -> Path:
    """The run directory of an audit, with summary and report.

    Args:
        again: make a summary that is there anew.
        ranks: processes that share the audit; the first makes the report.

    Raises:
        InputError: as `run_audit`.
    """
    out = run_audit(arguments, ranks)
    if ranks.rank:
        return out
    if again or not (out / "summary.json").exists():
        analyze(out)
    write_report(out)
    return out


def write_report(out: Path) -> Path:
    """Write report.md and report.html of a run with its summary; returns the page's path.

    Raises:
        InputError: `out` is no complete run, its files are damaged, or it has no summary.
    """
    run, answers, summary = read_run(out), read_answers(out).to_pandas(), read_summary(out)
    view = run_view(run, grouped(by_rule(answers, summary["rule"], out)), summary)
    templates = {"report.md": "run.md.jinja", "report.html": "run.html.jinja"}
    write_reports(out, "unswayed.report", view, templates)
    return out / "report.html"
