"""Cards of the persona datasets: metadata and text, made from what was built.

A card names files by their name and hash, never by their path, and depends on nothing but the
content, so that building again gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unswayed import __version__
from unswayed.data.hub import HUB, hub_source
from unswayed.data.items import BUILTIN, Item
from unswayed.data.questions import FEELINGS

if TYPE_CHECKING:
    from unswayed.mitigation.preferences import Passage
    from unswayed.mitigation.preferences.settings import PreferenceSettings

LICENSE = "apache-2.0"

# Whose the items of a file are, by the name that selects its reader.
INSTRUMENTS = {
    "steu": "the Situational Test of Emotional Understanding (STEU) of MacCann & Roberts (2008, "
    "Emotion 8(4), 540-551)",
    "stem": "the Situational Test of Emotion Management (STEM) of MacCann & Roberts (2008, "
    "Emotion 8(4), 540-551)",
    "emobench_eu": "EmoBench (emotional understanding) of Sabour et al. (2024)",
    "emobench_ea": "EmoBench (emotional application) of Sabour et al. (2024)",
}

ABILITIES = {"understanding": "emotional understanding", "management": "emotion management"}
CONFIG_WORDS = {
    "none": "no memory; `system_prompt` is null",
    "neutral": "a memory of the same length that says nothing of social standing",
    "explicit": "30 base personas, each in an advantaged and a disadvantaged version",
    "grid": "the 81 cells of gender, age, religion and ethnicity, three levels each",
}
WORDINGS = {
    "option": "The question does not list the options: the model's answer is the one whose text it "
    "finds most likely per character.",
    "letter": "The options are listed under letters, permuted per item by the seed and alike for "
    "all users; the answer is the most likely letter.",
    "generate": "The options are listed under letters, permuted per item by the seed and alike for "
    "all users; the model is asked to end with a line `Answer: X`.",
}

ITEM_COLUMNS = """\
| column | meaning |
|---|---|
| `question_id`, `test`, `kind` | the item, its test, and `understanding` or `management` |
| `condition` | `none`, `neutral`, `advantaged`, `disadvantaged`, or the cell of the grid |
| `persona_id`, `pair_id` | the user; `pair_id` is shared by the versions of one base persona |
| `gender`, `age`, `religion`, `ethnicity` | of a cell of the grid, else null |
| `memory`, `memory_style` | how the model knows the user: `prompt`, in the system message; or `none` |
| `system_prompt`, `user_prompt` | what the model reads |
| `options`, `option_order` | the options, and their indices in the order shown |
| `weights` | worth of each option from 0 to 1; the key's is the largest |
| `gold_label` | text of the best option |
| `scoring`, `seed` | how the question is worded, and the seed of the options' order |"""  # noqa: E501

PERSONA_COLUMNS = """\
| column | meaning |
|---|---|
| `persona_id`, `condition`, `pair_id` | the profile; versions of one base persona share `pair_id` |
| `gender`, `age`, `religion`, `ethnicity` | of a cell of the grid, else null |
| `slots` | the profile's parts in order: `name`, `template` with placeholders, and the text in the third and in the first person |
| `system_prompt` | the memory as the audit gives it to a model |"""  # noqa: E501

BUILTIN_INVARIANCE = (
    "They were written so that the best answer does not depend on who asks; keys and weights are "
    "the authors' judgement, not norms from a panel of raters."
)
OWN_INVARIANCE = (
    "Items that their file, or the annotators' decisions given with it, mark as depending on who "
    "asks are left out. Whether the others do not is the builder's judgement."
)

USE = """\
## Intended use

To measure whether what a model remembers about its user changes its answers to questions that do
not depend on who asks. Differences between users are the finding; compare them within one model,
paired by question and base persona.

## Misuse

The profiles describe sensitive attributes: social class, family, health care, gender, age,
religion, ethnicity. They are contrasts made for measurement. Do not use them to profile, score or
target people, to train a model to treat users by these attributes, or as a description of any
group. A small difference here is not proof of fairness elsewhere.

## Personal data

None. All users are invented; no text is by or about a real person, and nobody has a name."""

CITATION = """\
## Citation

```bibtex
@software{unswayed,
  title = {unswayed: audit and undo the skew that user memory puts into a model's emotional reasoning},
  author = {{The unswayed authors}},
  license = {Apache-2.0}
}

@inproceedings{personalizationtrap2026,
  title = {The Personalization Trap: How User Memory Alters Emotional Reasoning in LLMs},
  booktitle = {Proceedings of ACL 2026 (short papers)},
  pages = {511--529},
  year = {2026},
  note = {arXiv:2510.09905}
}
```"""  # noqa: E501


@dataclasses.dataclass(frozen=True)
class Count:
    """What one config holds; `sha256` is of its prompts, or of its profiles."""

    config: str
    rows: int
    users: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the items come from.

    Attributes:
        own: they are not the built-in bank but the user's.
        test: name of the test.
        words: what they are, with hashes.
        license_statement: what the user says on the terms of their own items, if anything.
    """

    own: bool
    test: str
    words: str
    license_statement: str | None = None


def is_own(spec: str) -> bool:
    """Whether a spec of `--items` names something else than the built-in bank."""
    return "=" in spec


def item_source(
    spec: str, items: Sequence[Item], sha256: str, license_statement: str | None
) -> Source:
    """The source of a test set in words.

    Args:
        spec: of `--items`; a file is named and hashed, a folder named.
        sha256: of the items' content (`items_hash`).
    """
    test = items[0].test
    content = f"{len(items)} items, SHA-256 of their content `{sha256}`"
    if not is_own(spec):
        words = f"The built-in bank `{test}` of `unswayed` {__version__}: {content}."
        return Source(False, test, words)
    where = named_source(spec).partition("=")[2]
    path = Path(spec.partition("=")[2])
    if path.is_file():
        where += f" (SHA-256 of the file `{hashlib.sha256(path.read_bytes()).hexdigest()}`)"
    whose = INSTRUMENTS.get(test, f"the instrument `{test}` of whoever built this dataset")
    words = (
        f"The items are {whose}, read from the builder's own copy, {where}: {content}. They are "
        "not the work of the `unswayed` project, and its licence does not cover them."
    )
    return Source(True, test, words, license_statement)


def named_source(spec: str) -> str:
    """A spec of `--items` with the file's name instead of its path."""
    test, equals, path = spec.partition("=")
    if not equals or path.startswith(HUB):
        return spec
    return f"{test}={Path(os.path.abspath(path)).name}"


# -- persona_steu, persona_stem ------------------------------------------------------------------


def item_metadata(kind: str, source: Source) -> dict[str, Any]:
    """Metadata of a test set. Items of the user's own have no licence until one is stated."""
    return _license(source.own, source.license_statement) | {
        "language": ["en"],
        "pretty_name": f"{ABILITIES[kind].capitalize()} under user memory",
        "task_categories": ["multiple-choice"],
        "tags": ["unswayed", "bias", "fairness", "emotional-intelligence", "user-memory"],
    }


def item_body(
    kind: str,
    source: Source,
    counts: Sequence[Count],
    n_items: int,
    scoring: str,
    seed: int,
    command: str,
) -> str:
    """Text of the card of a test set."""
    if not source.own:
        license = "Apache-2.0, items and profiles."
    elif source.license_statement:
        license = (
            "Profiles and wording: Apache-2.0. For the items, whoever built this dataset states:\n"
            f"\n> {source.license_statement}"
        )
    else:
        license = (
            "Profiles and wording: Apache-2.0. For the items no licence was stated: this dataset "
            "is for its builder's own use and must not be published."
        )
    return _sections(
        f"# {ABILITIES[kind].capitalize()} under user memory",
        f"Items of {ABILITIES[kind]}, each asked under different memories of the user, after [The "
        "Personalization Trap](https://arxiv.org/abs/2510.09905). The rows are exactly what "
        "`unswayed audit` asks.",
        "## Configs",
        _counts(counts, "prompts", n_items),
        "Each config has one split, `test`: it is made for measuring and not for training.",
        f'`datasets.load_dataset(REPO, "{counts[0].config}")` reads one of them.',
        "## Columns",
        ITEM_COLUMNS,
        "## Source",
        source.words,
        OWN_INVARIANCE if source.own else BUILTIN_INVARIANCE,
        f"The profiles and the wording of memory and questions are those of `unswayed` "
        f"{__version__}, not of the paper.",
        f"{WORDINGS[scoring]} Scoring `{scoring}`, seed {seed}. The SHA-256 of the prompts is over "
        "the JSON list of [`system_prompt`, `user_prompt`] of all rows in order.",
        USE,
        "## Licence",
        license,
        CITATION,
        _built(command),
    )


# -- personas ------------------------------------------------------------------------------------


def persona_metadata() -> dict[str, Any]:
    """Metadata of the profiles."""
    return {
        "license": LICENSE,
        "language": ["en"],
        "pretty_name": "Users, advantaged, disadvantaged, neutral and a demographic grid",
        "task_categories": ["text-generation"],
        "tags": ["unswayed", "bias", "fairness", "personas", "user-memory"],
    }


def persona_body(counts: Sequence[Count], command: str) -> str:
    """Text of the card of the profiles."""
    return _sections(
        "# Users, advantaged, disadvantaged, neutral and a demographic grid",
        "Profiles of invented users, to be given to a model as its memory of the user, after [The "
        "Personalization Trap](https://arxiv.org/abs/2510.09905). `persona_id` and `pair_id` are "
        "those of the datasets `persona_steu` and `persona_stem`.",
        "## Configs",
        _counts(counts, "profiles"),
        "Each config has one split, `test`: "
        f'`datasets.load_dataset(REPO, "{counts[0].config}", split="test")`.',
        "## Columns",
        PERSONA_COLUMNS,
        "## Source",
        f"The built-in profiles of `unswayed` {__version__}, written for it; the explicit set "
        "follows the paper's design (four dimensions of social capital, 30 base personas in two "
        "versions), and its texts are not the paper's. Nothing is drawn at random.",
        USE,
        "## Licence",
        "Apache-2.0.",
        CITATION,
        _built(command),
    )


# -- conversations -------------------------------------------------------------------------------


def conversation_metadata() -> dict[str, Any]:
    """Metadata of the conversations."""
    return {
        "license": LICENSE,
        "language": ["en"],
        "pretty_name": "Conversations to be remembered, with questions on them",
        "task_categories": ["question-answering", "text-generation"],
        "tags": ["unswayed", "user-memory", "long-term-memory", "conversations"],
    }


def conversation_body(n_conversations: int, n_questions: int, command: str) -> str:
    """Text of the card of the conversations."""
    return _sections(
        "# Conversations to be remembered, with questions on them",
        "Everyday conversations of one invented user with an assistant, in the order of time, each "
        "with concrete facts, and questions that only somebody who remembers them can answer. Some "
        "are deliberate near-misses: two conversations on near topics whose facts differ (`near`).",
        "## Content",
        f"{n_conversations} conversations with {n_questions} questions. Each row has "
        "`conversation_id`, `time`, `near`, `messages` (role, content) and `questions` (use, kind, "
        "question, answer). `kind` is `open`, `yes` or `no`; yes and no are balanced. `use` tells "
        "two wordings of the same facts apart: `train` for training a memory, `test` for asking "
        "it; no question stands in both.",
        "## Source",
        f"The built-in conversations of `unswayed` {__version__}, written for it. Nothing is drawn "
        "at random.",
        "## Intended use, and misuse",
        "To train and test how models remember what a user said. The facts are trivial on purpose; "
        "success here says nothing of remembering real users safely.",
        "## Personal data",
        "None: all people, places and events are invented, and no sensitive attributes are told.",
        "## Licence",
        "Apache-2.0.",
        _built(command),
    )


# -- preferences ---------------------------------------------------------------------------------

PREFERENCE_SOURCES = {
    "sampled": "both texts were written by the generator",
    "constructed": "both texts were put together from phrases of `unswayed` and the question's "
    "reference; a wrong answer is another question's, or a changed number",
    "own": "both texts were written by the generator, without further instruction: chosen without "
    "the memory, rejected with it",
}
PREFERENCE_RECIPE = """\
Judged pairs (`sampled`, `constructed`) follow the recipe of [The Personalization
Trap](https://arxiv.org/abs/2510.09905): the chosen text is right, untouched by the memory, and says
that it does not matter; the rejected one is wrong, or led by the memory. Where the paper is silent
the choices are ours."""
PREFERENCE_OWN = """\
## Own answers

A pair of `own` says: the answer that the model gives when it knows nobody is the better one under
every memory. That holds only for questions where the memory should not matter. No judge and no
reward read these texts (`reward`, `chosen_reward` and `rejected_reward` are null, `reference` is
null where the question has none): a wrong answer of the model stays wrong, chosen or rejected. The
chosen text is the same for all users of a question; users are of all versions, neutral ones, too.
Texts end after a whole sentence."""
PREFERENCE_COLUMNS = """\
| column | meaning |
|---|---|
| `prompt`, `chosen`, `rejected` | messages of `role` and `content`: the memory (system) and the question (user); the answers (assistant) |
| `question_id`, `category`, `reference` | the question and its right answer |
| `persona_id`, `pair_id`, `condition` | the user in the memory |
| `source` | the name of the config |
| `chosen_kind`, `rejected_kind` | told to check the memory (`aware_1` to `aware_3`), control (`control_1`, `control_2`), constructed, or the generator's own answer without and with the memory (`own_without`, `own_with`) |
| `reward`, `chosen_reward`, `rejected_reward` | the reward's name, and both values |
| `shared_words`, `similarity` | longest run of words that the pair shares with an emotional test item, and highest cosine to one |
| `tokens` | of the longer side, prompt included |"""  # noqa: E501

PREFERENCE_USE = """\
## Intended use

To train a model, by DPO or a relative of it, to keep what it remembers of its user out of answers
that do not depend on who asks.

## Misuse

The profiles describe sensitive attributes of invented users; do not use them to profile or target
people. Rejected answers are wrong, condescending or led by the memory: do not train a model towards
them. A model trained on these pairs may leave a memory aside that it should heed, for instance an
allergy: audit what it forgets. Lower bias on these questions is not proof of fairness elsewhere.

## Personal data

None in the profiles: all users are invented and nobody has a name. Questions from files of the
builder's own were not searched for personal data."""


BANK_WORDS = {
    BUILTIN: "the built-in questions",
    FEELINGS: "the built-in prompts on feelings and everyday situations, without references,",
}


def question_source(spec: str) -> Source:
    """The source of questions in words.

    Args:
        spec: of `--questions`; a file is named and hashed, a Hub dataset has its revision.
    """
    if not is_own(spec):
        words = f"`{spec}`: {BANK_WORDS[spec]} of `unswayed` {__version__}."
        return Source(False, spec, words)
    name, _, path = spec.partition("=")
    where = named_source(spec).partition("=")[2]
    if path.startswith(HUB):
        where += f", revision `{_revision(path)}`"
    elif Path(path).is_file():
        where += f" (SHA-256 of the file `{hashlib.sha256(Path(path).read_bytes()).hexdigest()}`)"
    words = f"`{name}`: {where}; not the work of the `unswayed` project."
    return Source(True, name, words)


def _revision(source: str) -> str:
    """Commit of a Hub dataset: the one that was asked for, else the present one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    name, _, revision = hub_source(source)
    try:
        return revision or HfApi().dataset_info(name).sha
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        return "unknown"


def preference_metadata(own: bool, license_statement: str | None) -> dict[str, Any]:
    """Metadata of the pairs; with questions of the user's own, no licence until one is stated."""
    return _license(own, license_statement) | {
        "language": ["en"],
        "pretty_name": "Preferences for answers that keep the user's memory out",
        "task_categories": ["reinforcement-learning", "text-generation"],
        "tags": ["unswayed", "dpo", "preference", "bias", "fairness", "user-memory", "trl"],
    }


def preference_body(
    sources: Sequence[Source],
    counts: Mapping[str, Mapping[str, int]],
    funnel: Sequence[Passage],
    overlap: Mapping[str, float],
    settings: PreferenceSettings,
    license_statement: str | None,
    command: str,
) -> str:
    """Text of the card of the pairs."""
    rows = [
        f"| `{config}` | {PREFERENCE_SOURCES[config]} | {splits['train']} | "
        f"{splits.get('test', 0)} |"
        for config, splits in counts.items()
    ]
    made = f"Seed {settings.seed}. "
    if settings.generates:
        made = f"Texts of a model are by `{settings.generator}`. {made}"
    if set(counts) - {"own"}:
        made = (
            f"Judge: `{settings.judge}`. Reward: "
            f"`{settings.reward or f'reference margin under {settings.policy}'}`; kept are chosen "
            f"> 0 > rejected with a difference of at least {settings.margin:g}. {made}"
        )
    if any(source.own for source in sources):
        license = (
            f"Profiles and wording: Apache-2.0. For the questions, whoever built this dataset "
            f"states:\n\n> {license_statement}"
            if license_statement
            else "Profiles and wording: Apache-2.0. For the questions no licence was stated: this "
            "dataset is for its builder's own use and must not be published."
        )
    else:
        license = "Apache-2.0."
    return _sections(
        "# Preferences for answers that keep the user's memory out",
        "A question whose answer does not depend on the user, a memory of a user, a better and a "
        "worse answer.",
        *([PREFERENCE_RECIPE] if set(counts) - {"own"} else []),
        "## Configs",
        "| config | its texts | train | test |\n|---|---|--:|--:|\n" + "\n".join(rows),
        "Configs are apart so that nobody mixes them unawares. Train and test share no question, "
        "in no config.",
        "## Columns",
        PREFERENCE_COLUMNS,
        *([PREFERENCE_OWN] if "own" in counts else []),
        "## How the pairs came about",
        funnel_table(funnel),
        f"{made}No pair has more than {settings.max_length} tokens of `{settings.policy}`. The "
        f"first {settings.spare_pairs} base personas are in no pair.",
        "## Distance to the test items",
        "\n".join(f"* {name}: {value:.3g}" for name, value in overlap.items())
        + f"\n\nDropped were runs of {settings.ngram} words and cosines from "
        f"{settings.similarity:g} (embeddings of `{settings.embedder}`), against "
        f"{', '.join(named_source(spec) for spec in settings.against or ['the built-in items'])}.",
        "## Questions",
        "\n".join(f"* {source.words}" for source in sources),
        PREFERENCE_USE,
        "## Licence",
        license,
        CITATION,
        _built(command),
    )


def funnel_table(funnel: Sequence[Passage]) -> str:
    """Rows in, rows out and reasons, stage by stage."""
    lines = ["| stage | source | in | out | why rows stopped |", "|---|---|--:|--:|---|"]
    for p in funnel:
        why = "; ".join(f"{reason}: {n:,}" for reason, n in p.reasons.items())
        lines.append(f"| {p.stage} | {p.source} | {p.rows_in:,} | {p.rows_out:,} | {why} |")
    return "\n".join(lines)


# -- parts ---------------------------------------------------------------------------------------


def _counts(counts: Sequence[Count], hashed: str, n_items: int | None = None) -> str:
    items = " | items" if n_items is not None else ""
    lines = [
        f"| config | memory | rows | users{items} | SHA-256 of the {hashed} |",
        "|---|---|--:|--:|" + ("--:|" if items else "") + "---|",
    ]
    for count in counts:
        n = f" | {n_items}" if n_items is not None else ""
        lines.append(
            f"| `{count.config}` | {CONFIG_WORDS[count.config]} | {count.rows} | {count.users}{n} "
            f"| `{count.sha256}` |"
        )
    return "\n".join(lines)


def _license(own: bool, statement: str | None) -> dict[str, str]:
    if not own:
        return {"license": LICENSE}
    return {"license": "other", "license_name": "stated-in-the-card"} if statement else {}


def _built(command: str) -> str:
    return f"## Built by\n\n```sh\n{command}\n```\n\nwith `unswayed` {__version__}."


def _sections(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"
