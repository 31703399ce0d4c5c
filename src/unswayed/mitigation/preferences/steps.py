"""What each stage does: rows in, rows out, `dropped` on those that go no further."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

from unswayed.audit.trials import NONE, PAIR_CONDITIONS
from unswayed.embedding import Embedder
from unswayed.errors import InputError
from unswayed.items import BUILTIN, load_items
from unswayed.memory import Message
from unswayed.mitigation import overlap, rewards
from unswayed.mitigation.constructed import construct, construct_group
from unswayed.mitigation.judge import Judgement, judge
from unswayed.mitigation.preferences.columns import PROMPT, Row
from unswayed.mitigation.preferences.settings import RULES, PreferenceSettings
from unswayed.mitigation.questions import Question, load_questions
from unswayed.mitigation.sampling import asked, conversations
from unswayed.models import model_path
from unswayed.personas import VERSIONS, Persona, load_personas
from unswayed.progress import Progress
from unswayed.scoring.journal import Journal
from unswayed.scoring.load import folder_hash, load_lm, parse_settings, public_settings

SAMPLED, CONSTRUCTED, CONSISTENT = "sampled", "constructed", "consistent"
CONSTRUCTED_KINDS = ("constructed_chosen", "constructed_rejected")
NO_WRONG_ANSWER = {
    "kind": "constructed",
    "candidate": "",
    "dropped": "no wrong answer can be made of this category's other answers",
}
UNREADABLE = Judgement(None, False, False, ("the judge's verdict is unreadable",))
CHUNK = 16  # pairs whose rewards are asked together


def weights(model: str) -> str:
    """A local model's hash, another's name."""
    return folder_hash(model_path(model)) or model


# -- 1, 2: questions and personas ------------------------------------------------------------------


def questions(_: list[Row], settings: PreferenceSettings) -> list[Row]:
    found = load_questions(settings.questions or [BUILTIN])
    if settings.n_questions is not None and settings.n_questions < len(found):
        rng = random.Random(f"{settings.seed}/questions")
        found = [found[i] for i in sorted(rng.sample(range(len(found)), settings.n_questions))]
    free = "the reference is a text, which rules cannot compare: a model must judge"
    return [
        {
            "question_id": question.id,
            "category": question.category,
            "question": question.question,
            "answer": question.answer,
            "aliases": list(question.aliases),
            "numeric": question.numeric,
            "dropped": free if question.free and settings.judge == RULES else None,
        }
        for question in found
    ]


def _question(row: Row) -> Question:
    names = ("category", "question", "answer", "numeric")
    values = {name: row[name] for name in names}
    return Question(id=row["question_id"], aliases=tuple(row["aliases"]), **values)


def users(settings: PreferenceSettings) -> list[Persona]:
    """The personas that pairs are made of: all versions but neutral, without the spared pairs.

    Raises:
        InputError: none is left.
    """
    return [p for p in _left(settings) if p.condition != VERSIONS[-1]]


def _left(settings: PreferenceSettings) -> list[Persona]:
    """The personas without the spared pairs.

    Raises:
        InputError: none is left, or only neutral ones.
    """
    personas = load_personas(settings.personas)
    pairs = list(dict.fromkeys(p.pair_id for p in personas if p.pair_id is not None))
    spared = set(pairs[: settings.spare_pairs])
    left = [p for p in personas if p.pair_id not in spared]
    if all(p.condition == VERSIONS[-1] for p in left):
        raise InputError(
            f"--spare_pairs {settings.spare_pairs} leaves none of {len(pairs)} base personas: "
            "give a smaller number"
        )
    return left


def bases(settings: PreferenceSettings) -> dict[str, dict[str, Persona]]:
    """The base personas that groups are made of, those with every version: id -> condition ->
    persona.

    Raises:
        InputError: there are fewer than a question is to have groups.
    """
    found: dict[str, dict[str, Persona]] = {}
    for persona in _left(settings):
        if persona.pair_id is not None:
            found.setdefault(persona.pair_id, {})[persona.condition] = persona
    whole = {name: versions for name, versions in found.items() if len(versions) == len(VERSIONS)}
    if settings.consistent > len(whole):
        raise InputError(
            f"--consistent {settings.consistent}: only {len(whole)} base personas are there with "
            f"the versions {', '.join(VERSIONS)}"
        )
    return whole


def memory_of(persona: Persona) -> str:
    """The notes on a user, as one text."""
    return " ".join(text for _, text in persona.texts())


def prompts(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    personas = users(settings)
    rng = random.Random(f"{settings.seed}/sampled")
    n_sampled = len(rows) if settings.sampled is None else min(settings.sampled, len(rows))
    sampled = set(rng.sample(range(len(rows)), n_sampled))
    if settings.constructed > len(personas):
        raise InputError(
            f"--constructed {settings.constructed}: only {len(personas)} users are there"
        )
    groups = bases(settings) if settings.consistent else {}
    found = []
    for number, row in enumerate(rows):
        rng = random.Random(f"{settings.seed}/{row['question_id']}")
        drawn = [(SAMPLED, rng.choice(personas))] if number in sampled else []
        drawn += [(CONSTRUCTED, p) for p in rng.sample(personas, settings.constructed)]
        found += [row | {"source": source, **_user(persona)} for source, persona in drawn]
        rng = random.Random(f"{settings.seed}/{row['question_id']}/{CONSISTENT}")
        for base in rng.sample(list(groups), settings.consistent):
            memories = [
                _user(groups[base][condition]) if condition != NONE else _nobody(base)
                for condition in PAIR_CONDITIONS
            ]
            found += [row | {"source": CONSISTENT, **memory} for memory in memories]
    return found


def _nobody(base: str) -> Row:
    """No memory, in the group of a base persona."""
    return {"persona_id": None, "pair_id": base, "condition": NONE, "memory": ""}


def _user(persona: Persona) -> Row:
    return {
        "persona_id": persona.id,
        "pair_id": persona.pair_id,
        "condition": persona.condition,
        "memory": memory_of(persona),
    }


def prompt_of(row: Row) -> list[Message]:
    """What the trained model reads; without a memory the question alone."""
    messages = asked(row["memory"], row["question"])
    return messages if row["memory"] else messages[-1:]


# -- groups ----------------------------------------------------------------------------------------


def group_of(row: Row) -> tuple[str, str] | None:
    """Question and base persona of a row that stands in a group, None for others."""
    return (row["question_id"], row["pair_id"]) if row.get("source") == CONSISTENT else None


def whole_groups(rows: list[Row]) -> list[Row]:
    """Where a row of a group is dropped, the others are, too, and say why it was."""
    broken: dict[tuple[str, str] | None, str] = {}
    for row in rows:
        if row.get("dropped"):
            broken.setdefault(group_of(row), row["dropped"])
    broken.pop(None, None)
    return [
        row | {"dropped": f"of a group with: {broken[group_of(row)]}"}
        if group_of(row) in broken and not row.get("dropped")
        else row
        for row in rows
    ]


# -- 3, 4: candidates and their judge --------------------------------------------------------------


def candidates(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    by_source: dict[str, list[Row]] = {SAMPLED: [], CONSTRUCTED: [], CONSISTENT: []}
    for row in rows:
        by_source[row["source"]].append(row)
    return (
        _sample(by_source[SAMPLED], settings)
        + _construct(by_source[CONSTRUCTED], settings)
        + _construct_groups(by_source[CONSISTENT], settings)
    )


def _sample(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    asked_for = [
        (row, kind, messages)
        for row in rows
        for kind, messages in conversations(row["memory"], row["question"]).items()
    ]
    texts = ask_model("generator", [messages for _, _, messages in asked_for], settings)
    found: list[Row] = []
    seen: set[tuple] = set()
    for (row, kind, _), text in zip(asked_for, texts, strict=True):
        key = (row["question_id"], row["persona_id"], text.strip())
        reason = "the same text as another candidate" if key in seen else None
        reason = reason if text.strip() else "empty"
        seen.add(key)
        found.append(row | {"kind": kind, "candidate": text, "dropped": reason})
    return found


def _construct(rows: Sequence[Row], settings: PreferenceSettings) -> list[Row]:
    personas = {persona.id: persona for persona in users(settings)}
    known = load_questions(settings.questions or [BUILTIN])
    found: list[Row] = []
    for row in rows:
        question, persona = _question(row), personas[row["persona_id"]]
        rng = random.Random(f"{settings.seed}/{question.id}/{persona.id}")
        try:
            texts = construct(question, persona, _others(question, known), rng)
        except InputError:
            found.append(row | NO_WRONG_ANSWER)
            continue
        found += _candidates(row, texts)
    return found


def _construct_groups(rows: Sequence[Row], settings: PreferenceSettings) -> list[Row]:
    known, versions = load_questions(settings.questions or [BUILTIN]), bases(settings)
    groups: dict[tuple[str, str] | None, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    found: list[Row] = []
    for (question_id, base), some in groups.items():
        question = _question(some[0])
        others = _others(question, known)
        rng = random.Random(f"{settings.seed}/{question_id}/{base}")
        try:
            chosen, rejected = construct_group(question, versions[base], others, rng)
        except InputError:
            found += [row | NO_WRONG_ANSWER for row in some]
            continue
        for row in some:
            found += _candidates(row, (chosen, rejected[row["condition"]]))
    return found


def _others(question: Question, known: Sequence[Question]) -> list[Question]:
    """The other questions of the same category."""
    return [q for q in known if q.category == question.category and q.id != question.id]


def _candidates(row: Row, texts: Sequence[str]) -> list[Row]:
    return [
        row | {"kind": kind, "candidate": text}
        for kind, text in zip(CONSTRUCTED_KINDS, texts, strict=True)
    ]


def ask_model(what: str, asked_for: Sequence[list], settings: PreferenceSettings) -> list[str]:
    """Texts of the generator or of the judge; those of earlier builds are not asked again."""
    from unswayed.scoring.generate import generate, generation_settings
    from unswayed.scoring.load import plain_errors
    from unswayed.scoring.prompts import ChatFormat

    if not asked_for:
        return []
    model, backend = getattr(settings, what), getattr(settings, f"{what}_backend")
    model_args = parse_settings(f"--{what}_args", getattr(settings, f"{what}_args"))
    gen_kwargs = parse_settings("--gen_kwargs", settings.gen_kwargs) if what == "generator" else {}
    request = generation_settings(settings.max_gen_toks, gen_kwargs)
    identity = json.dumps([what, weights(model), backend, public_settings(model_args), request])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    lm = load_lm(model, None, settings.device, "auto", settings.batch_size, backend, model_args)
    chat = ChatFormat(lm)
    prompts = [chat.render(messages) for messages in asked_for]
    journal = Journal(Path(settings.work_dir) / f"{what}-{digest}.jsonl", lambda: progress.add(1))
    todo = set(prompts)
    done = sum(journal.get(prompt) is not None for prompt in todo)
    progress = Progress(len(todo), "texts", done=done)
    try:
        with plain_errors(backend):
            return generate(lm, prompts, journal, request, backend)
    finally:
        progress.close()


def judged(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    cases = [(_question(row), row["memory"], row["candidate"]) for row in rows]
    if settings.judge == RULES:
        judgements = [judge(*case) for case in cases]
    else:
        from unswayed.mitigation.model_judge import conversation, read_verdict

        replies = ask_model("judge", [conversation(*case) for case in cases], settings)
        judgements = [read_verdict(reply) or UNREADABLE for reply in replies]
    roles = [_role(row, found) for row, found in zip(rows, judgements, strict=True)]
    return [
        row
        | dataclasses.asdict(found)
        | {"reasons": list(found.reasons), "judge": settings.judge, "role": role}
        | {"dropped": None if role else _why_neither(row, found)}
        for row, found, role in zip(rows, judgements, roles, strict=True)
    ]


def _role(row: Row, found: Judgement) -> str | None:
    """What a candidate may be in a pair: by the recipe, except in a group. There the chosen one
    stands under no memory as well and so states no irrelevance; each is what it was made for."""
    if row["source"] != CONSISTENT:
        return found.role
    if row["kind"] == CONSTRUCTED_KINDS[0]:
        return "chosen" if found.correct and not found.biased else None
    return "rejected" if found.role == "rejected" else None


def _why_neither(row: Row, found: Judgement) -> str:
    if found is UNREADABLE:
        return found.reasons[0]
    if row["source"] == CONSISTENT:
        meant = "right" if row["kind"] == CONSTRUCTED_KINDS[0] else "wrong"
        return f"not judged {meant}, as it was meant"
    if found.correct is None:
        return "unbiased, and commits to no answer"
    return "correct and unbiased, but does not state irrelevance"


# -- 5, 6, 7: pairs, rewards, overlap --------------------------------------------------------------


def pairs(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    """One pair per prompt, drawn at random among its chosen and its rejected texts."""
    prompts: dict[tuple, list[Row]] = {}
    for row in rows:
        user = row["persona_id"] or row["pair_id"]  # the latter in a group, without memory
        prompts.setdefault((row["source"], row["question_id"], user), []).append(row)
    found = []
    for key, candidates in prompts.items():
        rng = random.Random("/".join((str(settings.seed), *key)))
        pair: Row = {name: candidates[0][name] for name in PROMPT} | {"dropped": None}
        for role in ("chosen", "rejected"):
            fit = [row for row in candidates if row["role"] == role]
            if not fit:
                pair["dropped"] = f"no {role} candidate"
                continue
            drawn = rng.choice(fit)
            pair |= {f"{role}_kind": drawn["kind"], role: drawn["candidate"]}
        found.append(pair)
    return found


def rewarded(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    """Rewards of both texts as answers to the question alone: a reward that reads the memory too
    could favour what fits the user. In groups they are noted and decide nothing: few would stay
    whole, and which answer is right is known by construction."""
    model = load_reward(settings)
    identity = json.dumps([model.name, weights(settings.reward or settings.policy)])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    journal = Journal(Path(settings.work_dir) / f"rewards-{digest}.jsonl")
    cases = [
        rewards.Case([{"role": "user", "content": row["question"]}], row["answer"], row[role])
        for row in rows
        for role in ("chosen", "rejected")
    ]
    keys = [json.dumps(case) for case in cases]
    todo = [i for i, key in enumerate(keys) if journal.get(key) is None]
    progress = Progress(len(keys), "rewards", done=len(keys) - len(todo))
    try:
        for start in range(0, len(todo), 2 * CHUNK):
            some = todo[start : start + 2 * CHUNK]
            for i, value in zip(some, model.score([cases[i] for i in some]), strict=True):
                journal.add(keys[i], repr(value))
            progress.add(len(some))
    finally:
        journal.close()
        progress.close()
    values = [float(journal.get(key)) for key in keys]
    return [
        row
        | {"reward": model.name, "chosen_reward": chosen, "rejected_reward": rejected}
        | {"dropped": _reward_reason(row["source"], chosen, rejected, settings.margin)}
        for row, chosen, rejected in zip(rows, values[::2], values[1::2], strict=True)
    ]


def _reward_reason(source: str, chosen: float, rejected: float, margin: float) -> str | None:
    return None if source == CONSISTENT else rewards.drop_reason(chosen, rejected, margin)


def load_reward(settings: PreferenceSettings) -> rewards.Reward:
    """The reward model that the settings name, else the reference margin under the policy."""
    from unswayed.scoring.prompts import ChatFormat

    if settings.reward:
        return rewards.ClassifierReward(settings.reward, settings.device)
    lm = load_lm(settings.policy, device=settings.device)
    return rewards.ReferenceMargin(lm, ChatFormat(lm))


def clean(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    """Copies of an item are looked for in the whole pair, paraphrases in the question."""
    items = load_items(settings.against or [BUILTIN])
    questions = list(dict.fromkeys(row["question"] for row in rows))
    embedder = Embedder(settings.embedder, settings.device)
    near = dict(zip(questions, overlap.overlaps(questions, items, embedder), strict=True))
    texts = ["\n".join((row["question"], row["chosen"], row["rejected"])) for row in rows]
    runs = overlap.shared_runs(texts, items, settings.ngram)
    lengths = pair_tokens(rows, settings.policy)
    found = []
    for row, (run, item), tokens in zip(rows, runs, lengths, strict=True):
        shared = dataclasses.replace(
            near[row["question"]], words=len(run), run=" ".join(run), run_item=item
        )
        reason = overlap.drop_reason(shared, settings.similarity)
        if tokens > settings.max_length:
            reason = f"longer than {settings.max_length} tokens"
        found.append(
            row
            | {"shared_words": shared.words, "shared_run": shared.run, "tokens": tokens}
            | {"shared_item": shared.run_item, "similarity": shared.cosine}
            | {"similar_item": shared.cosine_item, "dropped": reason}
        )
    return found


def pair_tokens(rows: Sequence[Row], policy: str) -> list[int]:
    """Tokens of each pair's longer side, prompt included, as the policy's chat template has it."""
    from transformers import AutoTokenizer

    from unswayed.scoring.prompts import plain_text

    tokenizer = AutoTokenizer.from_pretrained(model_path(policy))

    def length(row: Row, role: str) -> int:
        messages = [*prompt_of(row), {"role": "assistant", "content": row[role]}]
        if tokenizer.chat_template:
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            return len(tokenizer(text, add_special_tokens=False).input_ids)
        return len(tokenizer(plain_text(messages)).input_ids)

    return [max(length(row, "chosen"), length(row, "rejected")) for row in rows]
