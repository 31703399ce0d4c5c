"""Question-answer pairs on conversations, made without a model from key phrases and templates.

Stage 1 of PLUM (arXiv 2411.13405) has a language model write the pairs; `llm_augment` does that.
Small models write few usable ones, so this is the default for them. docs/plum.md says which forms
of questions there are and why.

One adapter remembers all conversations. A bare question ("Did we talk about seeds?") on a phrase of
another conversation is "no" only until that conversation comes; so such a question names its
conversation ("In our conversation about rye bread, did we talk about seeds?"), and its truth never
changes. Bare are only questions on what this conversation says (yes) or no conversation says (no).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files

import yaml

from unswayed.core.errors import InputError
from unswayed.data.conversations import Conversation, Fact
from unswayed.plum import phrases
from unswayed.plum.pairs import Pair
from unswayed.plum.phrases import Phrase

log = logging.getLogger(__name__)

TRAIN, REPHRASED, NEW_PHRASE = "train", "rephrased", "new_phrase"
SAID, NEAR, RANDOM, UNRELATED = "said", "near", "random", "unrelated"

# What negatives are about, and whether their question names the conversation. The forms are dealt
# out in turn, to yes and no alike, so that a form does not give the answer away.
FORMS: dict[str, list[tuple[str, bool]]] = {
    NEAR: [(NEAR, True)],
    RANDOM: [(RANDOM, True)],
    UNRELATED: [(UNRELATED, True), (UNRELATED, False)],
    "mixed": [
        (NEAR, True), (RANDOM, True), (UNRELATED, True),
        (NEAR, True), (RANDOM, True), (UNRELATED, False),
    ],
}  # fmt: skip
N_NEAR = 20  # phrases of the nearest conversations that count as near
FEWEST = 2  # phrases of a source, even if each is then asked about in fewer wordings
QUOTES = '"“” '
QUOTE_WORDS = range(4, 41)  # of a sentence that answers an open question


@dataclasses.dataclass(frozen=True)
class Question:
    """A pair, with what it is for and what it is about.

    Attributes:
        pair: the question and its answer.
        use: "train"; "rephrased", held out: another wording, on a phrase asked about in training;
            or "new_phrase", held out: another wording, on a phrase that no training question, of
            any conversation, asks about.
        source: where the phrase is from: "said" in the conversation; said in a "near" or in a
            "random" other one, but not in this; "unrelated" to all of them.
        phrase: what it asks about; "" for an open question on the whole conversation.
        quoted: of a new phrase said in the conversation: a training answer on it holds its words.
    """

    pair: Pair
    use: str
    source: str
    phrase: str
    quoted: bool = False


@dataclasses.dataclass(frozen=True)
class Augmented:
    """All questions, in the order of the conversations, and what could not be made.

    Attributes:
        questions: training and held-out questions.
        left_out: (conversation's id, reason) -> number of questions missing.
    """

    questions: tuple[Question, ...]
    left_out: Mapping[tuple[str, str], int]

    def pairs(self, use: str = TRAIN) -> list[Pair]:
        """The pairs of one use."""
        return [question.pair for question in self.questions if question.use == use]

    def counts(self) -> Counter[tuple[str, str, str]]:
        """(use, kind, source) -> number of questions."""
        return Counter((q.use, q.pair.kind, q.source) for q in self.questions)


def normalised(question: str) -> str:
    """A question without case, space and punctuation: what makes two questions the same."""
    return " ".join(phrases.WORD.findall(question.casefold()))


def bank_pairs(facts: Iterable[Fact]) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs of the built-in facts: one open, yes and no each."""
    train, held_out = [], []
    for fact in facts:
        asked = (fact.question, fact.yes, fact.no)
        reworded = (fact.held_out_question, fact.held_out_yes, fact.held_out_no)
        for kind, answer, first, second in zip(
            ("open", "yes", "no"), (fact.answer, "Yes", "No"), asked, reworded, strict=True
        ):
            train.append(Pair(fact.conversation, kind, first, answer))
            held_out.append(Pair(fact.conversation, kind, second, answer))
    return train, held_out


def extract_pairs(
    conversations: Sequence[Conversation],
    *,
    per_conversation: int = 40,
    seed: int = 0,
    positive_share: float = 0.5,
    open_share: float = 0.25,
    negatives: str = "mixed",
    near: Mapping[str, str] | None = None,
    wordings: int = 3,
    held_out: int = 8,
) -> Augmented:
    """Training and held-out questions on conversations, from their key phrases.

    The held-out questions depend on the conversations, `seed`, `near` and `held_out` alone, as long
    as training asks about half as many phrases as are held out: runs that differ in the other
    settings are tested on the same questions.

    Args:
        conversations: all of one user, in the order of time.
        per_conversation: training pairs of each.
        seed: of the draws of phrases and wordings.
        positive_share: share of positive pairs, among closed and among open ones.
        open_share: share of open pairs; with no positives or no negatives it stays.
        negatives: "near" (phrases of the most similar conversations), "random" (of any other one),
            "unrelated" (to all), or "mixed" (a third each).
        near: id -> id of the conversation whose phrases are nearest; else by TF-IDF.
        wordings: number of wordings in which a phrase is asked about, more where phrases are few.
        held_out: closed questions of each held-out set and conversation, half of them yes.

    Raises:
        InputError: settings out of range, or no conversation gives questions.
    """
    _check(per_conversation, positive_share, open_share, negatives, wordings, held_out)
    if not conversations:
        raise InputError("no conversations are given; questions need at least one")
    if negatives in (NEAR, RANDOM) and len(conversations) == 1:
        raise InputError(
            f"negatives {negatives!r} need other conversations, one is given: use 'unrelated'"
        )
    material = _material(conversations, seed, near or {}, held_out)
    left_out: Counter[tuple[str, str]] = Counter()
    ready = []
    for one in material:
        if one.topic is None or not one.trained or not one.kept:
            reason = "fewer than 3 key phrases that other conversations leave to it"
            left_out[one.id, reason] = per_conversation + 2 * held_out
        else:
            ready.append(one)
    if not ready:
        raise InputError(
            f"none of {len(conversations)} conversations has 3 key phrases to ask about: give "
            "conversations with more text in words"
        )
    n_open = round(per_conversation * open_share)
    closed, open_ = (_split(n, positive_share) for n in (per_conversation - n_open, n_open))
    fixed: set[str] = set()
    kept = {
        one.id: _held_out(one, closed, negatives, wordings, held_out, seed, fixed) for one in ready
    }
    questions: list[Question] = []
    for one in ready:
        draw, taken = random.Random(f"{seed} train {one.id}"), set(fixed)
        train = _closed(one, TRAIN, _pools(one), FORMS[negatives], closed, wordings, draw, taken)
        train += _open(one, TRAIN, open_, wordings, draw, taken)
        answers = [
            frozenset(phrases.content_stems(q.pair.answer)) for q in train if q.pair.kind == "open"
        ]
        quoted = {p.text for p in one.kept if any(p.said_in(answer) for answer in answers)}
        questions += train
        for q in kept[one.id]:
            told = q.use == NEW_PHRASE and q.source == SAID and q.phrase in quoted
            questions.append(dataclasses.replace(q, quoted=told))
        for source in dict.fromkeys(source for source, _ in FORMS[negatives]):
            if closed[1] and not one.negatives[source]:
                left_out[one.id, f"no phrase for {source} negatives, so others are used,"] += 1
        short = {
            "too few phrases for as many pairs": per_conversation - len(train),
            "too few phrases for as many held-out questions": 2 * held_out
            - sum(q.pair.kind in ("yes", "no") for q in kept[one.id]),
        }
        left_out.update({(one.id, reason): n for reason, n in short.items() if n})
    _report(left_out, len(conversations))
    return Augmented(tuple(questions), left_out)


def _check(
    per_conversation: int,
    positive_share: float,
    open_share: float,
    negatives: str,
    wordings: int,
    held_out: int,
) -> None:
    if per_conversation < 1:
        raise InputError(f"per_conversation is {per_conversation}, it must be at least 1")
    for name, share in (("positive_share", positive_share), ("open_share", open_share)):
        if not 0 <= share <= 1:
            raise InputError(f"{name} is {share}, it must be from 0 to 1")
    if negatives not in FORMS:
        raise InputError(f"negatives {negatives!r} is not one of {', '.join(FORMS)}")
    most = len(wording("closed", TRAIN))
    if not 1 <= wordings <= most:
        raise InputError(f"wordings is {wordings}, it must be from 1 to {most}")
    if held_out < 2 or held_out % 2:
        raise InputError(f"held_out is {held_out}, it must be even and at least 2")


def _split(total: int, positive_share: float) -> tuple[int, int]:
    positive = math.floor(total * positive_share + 0.5)
    return positive, total - positive


def _report(left_out: Mapping[tuple[str, str], int], n_conversations: int) -> None:
    reasons: dict[str, Counter[str]] = {}
    for (id, reason), count in left_out.items():
        reasons.setdefault(reason, Counter())[id] += count
    for reason, ids in reasons.items():
        log.warning(
            "augmentation: %s in %d of %d conversations, first %s",
            reason, len(ids), n_conversations, next(iter(ids)),
        )  # fmt: skip


# -- what there is to ask about ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Material:
    """What questions on one conversation are made of.

    Attributes:
        topic: the phrase that names the conversation in questions.
        trained, kept: its key phrases for training and to hold out.
        negatives: source -> phrases not said here, for training.
        kept_negatives: the same, to hold out.
        quotes: phrase -> the sentence that holds it, with its speaker.
    """

    id: str
    topic: Phrase | None
    trained: list[Phrase]
    kept: list[Phrase]
    negatives: dict[str, list[Phrase]]
    kept_negatives: dict[str, list[Phrase]]
    quotes: dict[Phrase, str]


@functools.cache
def _bank() -> dict:
    text = (files("unswayed.plum") / "bank" / "questions.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def wording(kind: str, use: str) -> list[str]:
    """The templates of a kind ("contexts", "closed", "open", "outline") for training or not."""
    return _bank()[kind][TRAIN if use == TRAIN else "held_out"]


def _material(
    conversations: Sequence[Conversation], seed: int, near: Mapping[str, str], held_out: int
) -> list[_Material]:
    found = phrases.key_phrases(conversations)
    said = [phrases.said(one) for one in conversations]
    asked = [mine[1:] for mine in found]
    kept = _held_out_phrases(asked, [mine[0] for mine in found if mine], held_out // 2)
    unrelated = [
        phrase
        for phrase in phrases.bank_phrases(_bank()[UNRELATED])
        if not any(phrase.said_in(words) for words in said)
    ]
    place = {one.id: i for i, one in enumerate(conversations)}
    material = []
    for i, (one, order) in enumerate(
        zip(conversations, phrases.near_first(conversations), strict=True)
    ):
        if (nearest := place.get(near.get(one.id, ""))) is not None:
            order = [nearest, *(j for j in order if j != nearest)]
        topic = next(iter(found[i]), None)
        # Where other conversations speak of the topic too, the question may mean any of them.
        meant = [said[i]] + [words for words in said if topic and topic.said_in(words)]

        def untrue(pool: Iterable[Phrase], meant=meant, topic=topic) -> Iterator[Phrase]:
            for phrase in pool:
                said_there = any(phrase.said_in(words) for words in meant)
                if not said_there and not (topic and phrase.overlaps(topic)):
                    yield phrase

        pools: list[dict[str, list[Phrase]]] = []
        for is_kept in (False, True):
            draw = random.Random(f"{seed} negatives {one.id} {is_kept}")
            theirs = [
                phrase for j in order for phrase in asked[j] if (phrase.key in kept) == is_kept
            ]
            nearest = list(itertools.islice(untrue(theirs), N_NEAR))
            shuffled = untrue(draw.sample(theirs, len(theirs)))
            pool = _one_each(itertools.chain(nearest, shuffled), 2 * N_NEAR)
            half = list(untrue(unrelated[is_kept::2]))
            pools.append(
                {
                    NEAR: [phrase for phrase in pool if phrase in nearest],
                    RANDOM: [phrase for phrase in pool if phrase not in nearest],
                    UNRELATED: draw.sample(half, len(half)),
                }
            )
        material.append(
            _Material(
                id=one.id,
                topic=topic,
                trained=[phrase for phrase in asked[i] if phrase.key not in kept],
                kept=[phrase for phrase in asked[i] if phrase.key in kept],
                negatives=pools[0],
                kept_negatives=pools[1],
                quotes=_quotes(one, [p for p in asked[i] if p.key not in kept]),
            )
        )
    return material


def _one_each(pool: Iterable[Phrase], most: int) -> list[Phrase]:
    """The first phrases in order, without those that overlap one before them."""
    chosen: list[Phrase] = []
    for phrase in pool:
        if len(chosen) == most:
            break
        if not any(phrase.overlaps(other) for other in chosen):
            chosen.append(phrase)
    return chosen


def _held_out_phrases(
    asked: Sequence[Sequence[Phrase]], topics: Sequence[Phrase], wanted: int
) -> set[frozenset[str]]:
    """Keys of the phrases that no training question asks about: up to `wanted` a conversation.

    Every third phrase of a conversation, so that both parts are alike; those with the fewest choose
    first. A phrase of several conversations is held out, or trained on, in all of them.
    """
    trained, kept = {topic.key for topic in topics}, set()
    for mine in sorted(asked, key=len):  # stable
        free = [phrase.key for phrase in mine if phrase.key not in trained | kept]
        most = min(wanted, len(mine) // 2) - sum(phrase.key in kept for phrase in mine)
        some = free[2::3] or free[1:] or (free if len(mine) > 1 else [])
        some = some[: max(0, most)]
        kept.update(some)
        trained.update(key for key in free if key not in kept)
    return kept


def _quotes(conversation: Conversation, wanted: Sequence[Phrase]) -> dict[Phrase, str]:
    """Phrase -> the first sentence that holds it, statements before questions, and who said it."""
    lines = [
        ("You" if turn["role"] == "user" else "I", sentence)
        for turn in conversation.turns
        for sentence in phrases.sentences(turn["content"])
        if len(sentence.split()) in QUOTE_WORDS
    ]
    lines.sort(key=lambda line: line[1].endswith("?"))  # stable
    held = [(who, line, frozenset(phrases.content_stems(line))) for who, line in lines]
    quotes = {}
    for phrase in wanted:
        for who, line, stems in held:
            if phrase.said_in(stems):
                quotes[phrase] = f'{who} said: "{line.strip(QUOTES)}"'
                break
    return quotes


# -- questions -----------------------------------------------------------------------------------

Slot = tuple[str, Phrase, bool]  # source, phrase, and whether the question names the conversation


def _pools(one: _Material) -> dict[str, list[Phrase]]:
    """Source -> phrases for training."""
    return {SAID: one.trained, **one.negatives}


def _slots(
    pools: Mapping[str, Sequence[Phrase]], forms: Sequence[tuple[str, bool]], wordings: int
) -> list[Slot]:
    """For each form a phrase of its source; a phrase comes `wordings` times where there are enough.

    An empty source gives way to another kind of negatives, whose question must name the
    conversation; without any negatives there are no slots for them.
    """
    given = [source for source in (NEAR, RANDOM, UNRELATED) if pools[source]]
    forms = [
        form if pools[form[0]] else (given[0], True) for form in forms if given or pools[form[0]]
    ]
    phrases_of = {
        source: itertools.cycle(pools[source][: max(FEWEST, math.ceil(total / wordings))])
        for source, total in Counter(source for source, _ in forms).items()
    }
    return [(source, next(phrases_of[source]), named) for source, named in forms]


def _wordings(
    one: _Material, kind: str, use: str, phrase: Phrase, named: bool, draw: random.Random
) -> Iterator[str]:
    """All wordings of a question in random order, each body once before any comes twice."""
    bodies = draw.sample(all_ := wording(kind, use), len(all_))
    contexts = draw.sample(all_ := wording("contexts", use), len(all_))
    for shift in range(len(contexts) if named else 1):
        for k, body in enumerate(bodies):
            text = body.format(phrase=phrase.text)
            if named:
                context = contexts[(k + shift) % len(contexts)].format(topic=one.topic.text)
                text = f"{context} {text}"
            yield text[0].upper() + text[1:]


def _fill(
    one: _Material,
    kind: str,
    use: str,
    slots: Sequence[Slot],
    answer: Callable[[Phrase], str],
    draw: random.Random,
    taken: set[str],
) -> list[Question]:
    """A question for each slot, none of them taken; a slot whose wordings are spent gives none."""
    body = "closed" if kind in ("yes", "no") else "open"
    left = {
        (phrase, named): _wordings(one, body, use, phrase, named, draw)
        for _, phrase, named in slots
    }
    questions = []
    for source, phrase, named in slots:
        for text in left[phrase, named]:
            if normalised(text) not in taken:
                taken.add(normalised(text))
                pair = Pair(one.id, kind, text, answer(phrase))
                questions.append(Question(pair, use, source, phrase.text))
                break
    return questions


def _balanced(
    positive: list[Question], negative: list[Question], wanted: tuple[int, int]
) -> list[Question]:
    """The most of both in the wanted proportion."""
    total = sum(wanted)
    for n in range(total, 0, -1):
        n_positive, n_negative = _split(n, wanted[0] / total)
        if n_positive <= len(positive) and n_negative <= len(negative):
            return positive[:n_positive] + negative[:n_negative]
    return []


def _dealt(
    one: _Material, forms: Sequence[tuple[str, bool]], number: int
) -> list[tuple[str, bool]]:
    """The forms in turn; each conversation begins at another one, so that few give all in all."""
    start = random.Random(one.id).randrange(len(forms))
    return [forms[(start + i) % len(forms)] for i in range(number)]


def _closed(
    one: _Material,
    use: str,
    pools: Mapping[str, Sequence[Phrase]],
    forms: Sequence[tuple[str, bool]],
    wanted: tuple[int, int],
    wordings: int,
    draw: random.Random,
    taken: set[str],
) -> list[Question]:
    """Closed questions, as many as wanted, or fewer in the same balance."""
    dealt = _dealt(one, forms, max(wanted))
    slots = {
        "yes": _slots(pools, [(SAID, named) for _, named in dealt[: wanted[0]]], wordings),
        "no": _slots(pools, dealt[: wanted[1]], wordings),
    }
    yes, no = (
        _fill(one, kind, use, slots[kind], lambda _, kind=kind: kind.capitalize(), draw, taken)
        for kind in ("yes", "no")
    )
    return _balanced(yes, no, wanted)


def _open(
    one: _Material,
    use: str,
    wanted: tuple[int, int],
    wordings: int,
    draw: random.Random,
    taken: set[str],
) -> list[Question]:
    """Open questions, all naming the conversation: on the whole of it, on phrases that are said,
    answered by a sentence, and on phrases that are not.
    """
    quotable = {SAID: [phrase for phrase in one.trained if phrase in one.quotes]}
    n_whole = max(1, wanted[0] // (wordings + 1)) if quotable[SAID] else wanted[0]
    outline = f"We talked about {_list([phrase.told for phrase in one.trained[:3]])}."
    said = []
    for template in draw.sample(all_ := wording("outline", use), len(all_)):
        text = template.format(topic=one.topic.text)
        if len(said) < min(n_whole, wanted[0]) and normalised(text) not in taken:
            taken.add(normalised(text))
            said.append(Question(Pair(one.id, "open", text, outline), use, SAID, ""))
    if quotable[SAID]:
        slots = _slots(quotable | one.negatives, [(SAID, True)] * (wanted[0] - len(said)), wordings)
        said += _fill(one, "open", use, slots, one.quotes.__getitem__, draw, taken)
    forms = [(FORMS["mixed"][i % len(FORMS["mixed"])][0], True) for i in range(wanted[1])]
    slots = _slots(_pools(one), forms, wordings)
    unsaid = _fill(one, "open-no", use, slots, lambda p: _denial(p, draw), draw, taken)
    return _balanced(said, unsaid, wanted)


def _denial(phrase: Phrase, draw: random.Random) -> str:
    return draw.choice(_bank()["denials"]).format(phrase=phrase.told)


def _list(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _held_out(
    one: _Material,
    trained: tuple[int, int],
    negatives: str,
    wordings: int,
    held_out: int,
    seed: int,
    taken: set[str],
) -> list[Question]:
    """Both held-out sets of a conversation; negatives are always mixed.

    The rephrased questions ask about the phrases that training asks about first: of positives and
    of each kind of negatives as many as training has, and two open pairs of either kind.
    """
    draw = random.Random(f"{seed} held out {one.id}")
    half, mixed = held_out // 2, FORMS["mixed"]
    slots = _slots(_pools(one), [(SAID, True)] * trained[0], wordings)
    slots += _slots(_pools(one), _dealt(one, FORMS[negatives], trained[1]), wordings)
    asked: dict[str, dict[Phrase, None]] = {}
    for source, phrase, _ in slots:
        asked.setdefault(source, {})[phrase] = None
    again = {source: list(asked.get(source, pool)) for source, pool in _pools(one).items()}
    new = {SAID: one.kept, **one.kept_negatives}
    questions = []
    for use, pools in ((REPHRASED, again), (NEW_PHRASE, new)):
        questions += _closed(one, use, pools, mixed, (half, half), 1, draw, taken)
    return questions + _open(one, REPHRASED, (2, 2), 1, draw, taken)
