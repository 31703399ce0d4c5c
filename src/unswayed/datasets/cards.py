"""Cards of the datasets: metadata, and text from `templates/`, made from what was built.

A card names files by their name and hash, never by their path, and depends on nothing but the
content, so that building again gives the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from unswayed import __version__
from unswayed.core.files import file_hash, without_folders
from unswayed.data.hub import HUB, hub_source
from unswayed.datasets.trees import Tree
from unswayed.display.page import render_markdown

LICENSE = "apache-2.0"
TEST_SET = ("multiple-choice",), ("bias", "fairness", "emotional-intelligence", "user-memory")
# dataset -> title, task categories, tags after "unswayed"
ABOUT = {
    "persona_steu": ("Emotional understanding under user memory", *TEST_SET),
    "persona_stem": ("Emotion management under user memory", *TEST_SET),
    "personas": (
        "Users, advantaged, disadvantaged, neutral and a demographic grid",
        ("text-generation",),
        ("bias", "fairness", "personas", "user-memory"),
    ),
    "memory_conversations": (
        "Conversations to be remembered, with questions on them",
        ("question-answering", "text-generation"),
        ("user-memory", "long-term-memory", "conversations"),
    ),
    "persona_preferences": (
        "Preferences for answers that keep the user's memory out",
        ("reinforcement-learning", "text-generation"),
        ("dpo", "preference", "bias", "fairness", "user-memory", "trl"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """Where items or questions come from.

    Attributes:
        own: they are not a built-in bank but the user's.
        name: of the bank, or the user's for them.
        where: of the user's own: the file's name and hash, the folder's name, or the address on the
            Hub; Markdown.
    """

    own: bool
    name: str
    where: str = ""


def source_of(spec: str) -> Source:
    """The source that a spec of `--items` or `--questions` names."""
    name, own, path = spec.partition("=")
    if not own:
        return Source(False, name)
    where = without_folders(spec).removeprefix(f"{name}=")
    if Path(path).is_file():
        where += f" (SHA-256 of the file `{file_hash(Path(path))}`)"
    return Source(True, name, where)


def question_source(spec: str) -> Source:
    """The same, with the revision of a Hub dataset: the one asked for, else the present one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    source, path = source_of(spec), spec.partition("=")[2]
    if not path.startswith(HUB):
        return source
    dataset, _, revision = hub_source(path)
    try:
        revision = revision or HfApi().dataset_info(dataset).sha
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        revision = "unknown"
    return dataclasses.replace(source, where=f"{source.where}, revision `{revision}`")


def make_tree(
    name: str,
    tables: Mapping[str, Mapping[str, Dataset]],
    facts: Mapping[str, Any],
    template: str,
    *,
    sources: Sequence[Source] = (),
    license_statement: str | None = None,
    **view: Any,
) -> Tree:
    """A dataset with its card.

    Args:
        name, tables, facts: as of `Tree`; the template sees the last two as well.
        sources: if one is the user's own there is no licence until one is stated.
        view: what the template needs besides.
    """
    title, tasks, tags = ABOUT[name]
    license = {"license": LICENSE}
    own = any(source.own for source in sources)
    if own:
        stated = {"license": "other", "license_name": "stated-in-the-card"}
        license = stated if license_statement else {}
    metadata = license | {
        "language": ["en"],
        "pretty_name": title,
        "task_categories": [*tasks],
        "tags": ["unswayed", *tags],
    }
    view |= {"title": title, "version": __version__, "tables": tables, "sources": sources}
    view |= {"own": own, "license_statement": license_statement}
    body = render_markdown("unswayed.datasets", f"{template}.md.jinja", {**facts, **view})
    return Tree(name, tables, metadata, facts, body)


def funnel_table(funnel: Sequence[Mapping[str, Any]]) -> str:
    """Rows in, rows out and reasons, stage by stage, of the fact "funnel" of a card."""
    table = render_markdown("unswayed.datasets", "funnel.md.jinja", {"funnel": funnel})
    return table.rstrip("\n")
