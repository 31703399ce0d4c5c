"""What each stage does: rows in, rows out, `dropped` on those that go no further."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.core.journal import Journal
from unswayed.core.ledger import digest
from unswayed.core.progress import Progress
from unswayed.data.items import BUILTIN, load_items
from unswayed.data.personas import VERSIONS, Persona, load_personas
from unswayed.data.questions import Question, load_questions
from unswayed.mitigation import overlap, rewards, sampling
from unswayed.mitigation.constructed import construct
from unswayed.mitigation.dpo.pairs import encoded, pair_length
from unswayed.mitigation.preferences.columns import PROMPT, Row
from unswayed.mitigation.preferences.settings import RULES, PreferenceSettings
from unswayed.mitigation.rule_judge import Judgement, judge
from unswayed.models.embedded import model_path
from unswayed.models.hashes import checkpoint_hash
from unswayed.models.load import load_lm, parse_settings, public_settings
from unswayed.models.vectors import Embedder
from unswayed.scoring.chat import Message
from unswayed.scoring.replies import strip_thinking

SAMPLED, CONSTRUCTED, OWN = "sampled", "constructed", "own"
CONSTRUCTED_KINDS = ("constructed_chosen", "constructed_rejected")
OWN_ROLES = {"own_without": "chosen", "own_with": "rejected"}
# Of the sources that a model writes.
PROMPTS = {SAMPLED: sampling.sampling_prompts, OWN: sampling.own_prompts}
TWICE = {
    SAMPLED: "the same text as another candidate",
    OWN: "the memory does not change the answer",
}
NO_WRONG_ANSWER = {
    "kind": "constructed",
    "candidate": "",
    "dropped": "no wrong answer can be made of this category's other answers",
}
UNREADABLE = Judgement(None, False, False, ("the judge's verdict is unreadable",))
CHUNK = 16  # pairs whose rewards are asked together


def weights(model: str) -> str:
    """A model's hash, the name of one that is not here."""
    return checkpoint_hash(model) or model


def _journal_path(settings: PreferenceSettings, what: str, identity: list) -> Path:
    """Where values are kept that stay the same from build to build."""
    return Path(settings.work_dir) / f"{what}-{digest(identity)[:12]}.jsonl"


# -- 1, 2: questions and personas ------------------------------------------------------------------


def questions(_: list[Row], settings: PreferenceSettings) -> list[Row]:
    drawn = load_questions(settings.questions or [BUILTIN])
    if settings.n_questions is not None and settings.n_questions < len(drawn):
        rng = random.Random(f"{settings.seed}/questions")
        drawn = [drawn[i] for i in sorted(rng.sample(range(len(drawn)), settings.n_questions))]
    rows = []
    for question in drawn:
        row = dataclasses.asdict(question) | {"aliases": list(question.aliases)}
        rows.append({"question_id": row.pop("id")} | row)
    return rows


def _question(row: Row) -> Question:
    values = {name: row[name] for name in ("category", "question", "answer", "numeric")}
    return Question(id=row["question_id"], aliases=tuple(row["aliases"]), **values)


def users(settings: PreferenceSettings) -> list[Persona]:
    """The personas that candidates are judged under: all versions but neutral.

    Raises:
        InputError: none is left.
    """
    return [p for p in all_versions(settings) if p.condition != VERSIONS[-1]]


def all_versions(settings: PreferenceSettings) -> list[Persona]:
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


def memory_of(persona: Persona) -> str:
    """The notes on a user, as one text."""
    return " ".join(text for _, text in persona.texts())


def prompts(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    """Question x user. A question that cannot be judged stops here, except for own answers."""
    personas, versions = users(settings), all_versions(settings)
    for name, there in (("constructed", personas), ("own", versions)):
        if getattr(settings, name) > len(there):
            raise InputError(
                f"--{name} {getattr(settings, name)}: only {len(there)} users are there"
            )
    unfit = [_unfit(_question(row), settings) for row in rows]
    sampled = set(range(len(rows)))
    if settings.sampled is not None:
        fit = [number for number, why in enumerate(unfit) if why is None]
        rng = random.Random(f"{settings.seed}/sampled")
        sampled = set(rng.sample(fit, min(settings.sampled, len(fit))))
    prompted = []
    for number, row in enumerate(rows):
        rng = random.Random(f"{settings.seed}/{row['question_id']}")
        drawn = [(SAMPLED, rng.choice(personas))] if number in sampled else []
        drawn += [(CONSTRUCTED, p) for p in rng.sample(personas, settings.constructed)]
        rng = random.Random(f"{settings.seed}/{row['question_id']}/{OWN}")
        drawn += [(OWN, p) for p in rng.sample(versions, settings.own)]
        for source, persona in drawn:
            user = {"persona_id": persona.id, "pair_id": persona.pair_id}
            user |= {"condition": persona.condition, "memory": memory_of(persona)}
            dropped = None if source == OWN else unfit[number]
            prompted.append(row | user | {"source": source, "dropped": dropped})
    return prompted


def _unfit(question: Question, settings: PreferenceSettings) -> str | None:
    """Why candidates for a question cannot be judged, None if they can."""
    if question.answer is None:
        return "there is no reference: such a question is for --own"
    if question.free and settings.judge == RULES:
        return "the reference is a text, which rules cannot compare: a model must judge"
    return None


def prompt_of(row: Row) -> list[Message]:
    """What the trained model reads."""
    return sampling.prompt_with_memory(row["memory"], row["question"])


# -- 3, 4: candidates and their judge --------------------------------------------------------------


def candidates(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    written = _generate([row for row in rows if row["source"] in PROMPTS], settings)
    return written + _construct([row for row in rows if row["source"] == CONSTRUCTED], settings)


def _generate(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    """Texts of the generator; its own answers without an end that was cut off."""
    requests = [
        (row, kind, messages)
        for row in rows
        for kind, messages in PROMPTS[row["source"]](row["memory"], row["question"]).items()
    ]
    texts = ask_model("generator", [messages for _, _, messages in requests], settings)
    written: list[Row] = []
    seen: set[tuple] = set()
    for (row, kind, _), text in zip(requests, texts, strict=True):
        source, whole = row["source"], text.strip()
        if source == OWN:
            text = sampling.whole_sentences(strip_thinking(text))
        key = (source, row["question_id"], row["persona_id"], text.strip())
        reason = TWICE[source] if key in seen else None
        if not text.strip():
            reason = "no whole sentence" if whole else "empty"
        seen.add(key)
        written.append(row | {"kind": kind, "candidate": text, "dropped": reason})
    return written


def _construct(rows: Sequence[Row], settings: PreferenceSettings) -> list[Row]:
    """A chosen and a rejected text per row; wrong answers are those of the same category."""
    personas = {persona.id: persona for persona in users(settings)}
    answered = [q for q in load_questions(settings.questions or [BUILTIN]) if q.answer is not None]
    written: list[Row] = []
    for row in rows:
        question, persona = _question(row), personas[row["persona_id"]]
        alike = [q for q in answered if q.category == question.category and q.id != question.id]
        rng = random.Random(f"{settings.seed}/{question.id}/{persona.id}")
        try:
            texts = construct(question, persona, alike, rng)
        except InputError:
            written.append(row | NO_WRONG_ANSWER)
            continue
        for kind, text in zip(CONSTRUCTED_KINDS, texts, strict=True):
            written.append(row | {"kind": kind, "candidate": text})
    return written


def ask_model(
    what: str, conversations: Sequence[list[Message]], settings: PreferenceSettings
) -> list[str]:
    """Texts of the generator or of the judge; those of earlier builds are not asked again."""
    from unswayed.scoring.ask import generate, generation_settings
    from unswayed.scoring.chat import ChatFormat

    if not conversations:
        return []
    model, backend = getattr(settings, what), getattr(settings, f"{what}_backend")
    model_args = parse_settings(f"--{what}_args", getattr(settings, f"{what}_args"))
    gen_kwargs = parse_settings("--gen_kwargs", settings.gen_kwargs) if what == "generator" else {}
    request = generation_settings(settings.max_gen_toks, gen_kwargs)
    identity = [what, weights(model), backend, public_settings(model_args), request]
    lm = load_lm(model, None, settings.device, "auto", settings.batch_size, backend, model_args)
    chat = ChatFormat(lm, thinks=True)
    prompts = [chat.render(messages) for messages in conversations]
    journal = Journal(_journal_path(settings, what, identity), lambda: progress.add(1))
    todo = set(prompts)
    done = sum(journal.get(prompt) is not None for prompt in todo)
    progress = Progress(len(todo), "texts", done=done)
    try:
        request = generation_settings(settings.max_gen_toks, gen_kwargs, chat.stops)
        return [chat.reply(text) for text in generate(lm, prompts, journal, request, backend)]
    finally:
        progress.close()


def judged(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    """What each candidate may be in a pair; the model's own answers are what they were asked as."""
    own = [row | {"role": OWN_ROLES[row["kind"]]} for row in rows if row["source"] == OWN]
    rows = [row for row in rows if row["source"] != OWN]
    texts = [(_question(row), row["memory"], row["candidate"]) for row in rows]
    if settings.judge == RULES:
        judgements = [judge(*text) for text in texts]
    else:
        from unswayed.mitigation.model_judge import conversation, read_verdict

        replies = ask_model("judge", [conversation(*text) for text in texts], settings)
        judgements = [read_verdict(reply) or UNREADABLE for reply in replies]
    return own + [
        row
        | dataclasses.asdict(judgement)
        | {"reasons": list(judgement.reasons), "judge": settings.judge, "role": judgement.role}
        | {"dropped": None if judgement.role else _why_neither(judgement)}
        for row, judgement in zip(rows, judgements, strict=True)
    ]


def _why_neither(judgement: Judgement) -> str:
    if judgement is UNREADABLE:
        return judgement.reasons[0]
    if judgement.correct is None:
        return "unbiased, and commits to no answer"
    return "correct and unbiased, but does not state irrelevance"


# -- 5, 6, 7: pairs, rewards, overlap --------------------------------------------------------------


def pairs(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    """One pair per prompt, drawn at random among its chosen and its rejected texts."""
    prompts: dict[tuple, list[Row]] = {}
    for row in rows:
        key = (row["source"], row["question_id"], row["persona_id"])
        prompts.setdefault(key, []).append(row)
    paired = []
    for key, texts in prompts.items():
        rng = random.Random("/".join((str(settings.seed), *key)))
        pair: Row = {name: texts[0][name] for name in PROMPT} | {"dropped": None}
        for role in ("chosen", "rejected"):
            fit = [row for row in texts if row["role"] == role]
            if not fit:
                pair["dropped"] = f"no {role} candidate"
                continue
            drawn = rng.choice(fit)
            pair |= {f"{role}_kind": drawn["kind"], role: drawn["candidate"]}
        paired.append(pair)
    return paired


def rewarded(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    """Rewards of both texts as answers to the question alone: a reward that reads the memory too
    could favour what fits the user. Own answers get none, their question may lack a reference."""
    own = [row for row in rows if row["source"] == OWN]
    rows = [row for row in rows if row["source"] != OWN]
    if not rows:
        return own
    model = load_reward(settings)
    identity = [model.name, weights(settings.reward or settings.policy)]
    journal = Journal(_journal_path(settings, "rewards", identity))
    texts = [
        rewards.Candidate([{"role": "user", "content": row["question"]}], row["answer"], row[role])
        for row in rows
        for role in ("chosen", "rejected")
    ]
    keys = [json.dumps(text) for text in texts]
    todo = [i for i, key in enumerate(keys) if journal.get(key) is None]
    progress = Progress(len(keys), "rewards", done=len(keys) - len(todo))
    try:
        for start in range(0, len(todo), 2 * CHUNK):
            some = todo[start : start + 2 * CHUNK]
            for i, value in zip(some, model.score([texts[i] for i in some]), strict=True):
                journal.add(keys[i], repr(value))
            progress.add(len(some))
    finally:
        journal.close()
        progress.close()
    values = [float(journal.get(key)) for key in keys]
    return own + [
        row
        | {"reward": model.name, "chosen_reward": chosen, "rejected_reward": rejected}
        | {"dropped": rewards.drop_reason(chosen, rejected, settings.margin)}
        for row, chosen, rejected in zip(rows, values[::2], values[1::2], strict=True)
    ]


def load_reward(settings: PreferenceSettings) -> rewards.Reward:
    """The reward model that the settings name, else the reference margin under the policy."""
    if settings.reward:
        return rewards.ClassifierReward(settings.reward, settings.device)
    return rewards.ReferenceReward(load_lm(settings.policy, device=settings.device))


def clean(rows: list[Row], settings: PreferenceSettings) -> list[Row]:
    """Copies of an item are looked for in the whole pair, paraphrases in the question."""
    items = load_items(settings.against or [BUILTIN])
    questions = list(dict.fromkeys(row["question"] for row in rows))
    embedder = Embedder(settings.embedder, settings.device)
    nearest = dict(zip(questions, overlap.nearest_items(questions, items, embedder), strict=True))
    texts = ["\n".join((row["question"], row["chosen"], row["rejected"])) for row in rows]
    runs = overlap.shared_runs(texts, items, settings.ngram)
    lengths = pair_tokens(rows, settings.policy)
    checked = []
    for row, (run, item), tokens in zip(rows, runs, lengths, strict=True):
        cosine, similar = nearest[row["question"]]
        reason = overlap.drop_reason(len(run), cosine, settings.similarity)
        if tokens > settings.max_length:
            reason = f"longer than {settings.max_length} tokens"
        checked.append(
            row
            | {"shared_words": len(run), "shared_run": " ".join(run), "shared_item": item}
            | {"similarity": cosine, "similar_item": similar, "tokens": tokens, "dropped": reason}
        )
    return checked


def pair_tokens(rows: Sequence[Row], policy: str) -> list[int]:
    """Tokens of each pair's longer side, prompt included, as the policy is trained on it."""
    from unswayed.scoring.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(model_path(policy))
    pairs = [
        {"prompt": prompt_of(row)}
        | {part: [{"role": "assistant", "content": row[part]}] for part in ("chosen", "rejected")}
        for row in rows
    ]
    return [pair_length(row) for row in encoded(pairs, tokenizer)]
