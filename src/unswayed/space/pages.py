"""Pieces of HTML; whatever visitors, models or files say is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from unswayed.audit.trials import NONE
from unswayed.data.items import Item
from unswayed.display.numbers import interval, percent
from unswayed.space.flips import Answer, in_words, notes

TONES = (NONE, "neutral", "advantaged", "disadvantaged")


def text(name: str) -> str:
    """A Markdown text of the page, by name."""
    return (files("unswayed.space") / "texts" / f"{name}.md").read_text(encoding="utf-8")


def style() -> str:
    """The style sheet."""
    return (files("unswayed.space") / "style.css").read_text(encoding="utf-8")


def complaint(message: str) -> str:
    """An error in plain words."""
    return f'<div class="us-alert" role="alert"><b>Not possible:</b> {escape(message)}</div>'


def notice(message: str) -> str:
    """A line that screen readers announce."""
    return f'<p class="us-note" role="status">{escape(message)}</p>'


def progress_bar(share: float) -> str:
    """How far long work is."""
    return f'<progress max="1" value="{share:.3f}" aria-label="Progress of the audit"></progress>'


def flip_page(item: Item, answers: Sequence[Answer]) -> str:
    """Scenario, change in words, and a panel of bars for each memory."""
    head, mark, look = "The answer stays", "=", ""
    if any(answer.flip for answer in answers):
        head, mark, look = "The answer flips", "⇄", "us-flipped"
    panels = "".join(_panel(item, answer) for answer in answers)
    return (
        f'<div class="us-verdict {look}" role="status">'
        f"<h3><span aria-hidden=true>{mark}</span> {head}</h3>"
        f"<p>{escape(in_words(item, answers))}</p></div>"
        f'<blockquote class="us-scenario">{escape(item.scenario)}</blockquote>'
        f'<div class="us-panels">{panels}</div>'
    )


def tone(condition: str) -> str:
    """The colour of a memory, as in the reports."""
    return condition if condition in TONES else "other"


def _panel(item: Item, answer: Answer) -> str:
    badge = '<span class="us-badge">⇄ flips</span>' if answer.flip else ""
    rows = "".join(
        _bar(option, share, i == answer.picked)
        for i, (option, share) in enumerate(zip(item.options, answer.shares, strict=True))
    )
    condition, about = NONE, '<p class="us-note">Nothing is remembered.</p>'
    if answer.user is not None:
        condition, text = answer.user.condition, escape(notes(answer.user))
        about = f"<details><summary>What it remembers</summary><p>{text}</p></details>"
    return (
        f'<section class="us-panel us-{tone(condition)}" aria-label="{escape(answer.label)}">'
        f"<h4>{escape(answer.label)} {badge}</h4>{about}<ul>{rows}</ul></section>"
    )


def _bar(option: str, share: float, picked: bool) -> str:
    mark = '<b class="us-picked">✓ picked</b>' if picked else ""
    return (
        f'<li class="{"us-on" if picked else ""}"><div class="us-line">'
        f"<span>{escape(option)}</span>"
        f"<span>{mark} {percent(share)} %</span></div>"
        f'<div class="us-track" aria-hidden="true"><i style="width:{100 * share:.2f}%"></i></div>'
        "</li>"
    )


def intervals(title: str, rows: Iterable[tuple[str, str, dict[str, float | None]]]) -> str:
    """A plot of shares with intervals, as a table that also reads as one.

    Args:
        rows: (label, condition, {"estimate", "low", "high"}), in [0, 1] or None.
    """

    def at(share: float) -> float:
        return round(100.0 * min(max(share, 0), 1), 2)

    body = []
    for label, condition, value in rows:
        estimate, low, high = (value[key] for key in ("estimate", "low", "high"))
        if estimate is None:
            continue
        whisker = ""
        if low is not None:
            style = f"left:{at(low)}%;width:{at(high) - at(low):.2f}%"
            whisker = f'<i class="us-whisker" style="{style}"></i>'
        body.append(
            f'<tr class="us-{tone(condition)}"><th scope="row">{escape(label)}</th>'
            f'<td class="us-plot"><div aria-hidden="true">{whisker}'
            f'<i class="us-dot" style="left:{at(estimate)}%"></i></div></td>'
            f"<td>{interval(value)}</td></tr>"
        )
    return (
        f'<table class="us-intervals"><caption>{escape(title)}</caption><thead><tr><th scope="col">'
        f'</th><th scope="col">{percent(0)} to {percent(1)}</th>'
        f'<th scope="col">Estimate [95 % interval]</th></tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
