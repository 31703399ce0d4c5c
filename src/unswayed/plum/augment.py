"""Question-answer pairs on conversations, made without a model from key phrases and templates.

Stage 1 of PLUM (arXiv 2411.13405) has a language model write the pairs; `writer` does that. Small
models write few usable ones, so this is the default. docs/plum.md says which forms of questions
there are and why.

One adapter remembers all conversations. A bare question ("Did we talk about seeds?") on a phrase of
another conversation is "no" only until that conversation comes; so such a question names its
conversation ("In our conversation about rye bread, did we talk about seeds?"), and its truth never
changes. Bare are only questions on what this conversation says (yes) or no conversation says (no).
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from unswayed.core.errors import InputError
from unswayed.data.conversations import Conversation
from unswayed.display.numbers import listed
from unswayed.plum import phrases
from unswayed.plum.phrases import Phrase
from unswayed.plum.qa import CLOSED, NEW_PHRASE, REPHRASED, TRAIN, LabelledPair, QAPair
from unswayed.plum.settings import NEAR, RANDOM, SAID, UNRELATED, AugmentSettings
from unswayed.plum.topics import Topic, make_topics
from unswayed.plum.words import bank, wording

log = logging.getLogger(__name__)

Form = tuple[str, bool]  # source, and whether the question names the conversation
# What negatives are about. The forms are dealt out in turn, to yes and no alike, so that a form
# does not give the answer away.
FORMS: dict[str, list[Form]] = {
    NEAR: [(NEAR, True)],
    RANDOM: [(RANDOM, True)],
    UNRELATED: [(UNRELATED, True), (UNRELATED, False)],
    "mixed": [
        (NEAR, True), (RANDOM, True), (UNRELATED, True),
        (NEAR, True), (RANDOM, True), (UNRELATED, False),
    ],
}  # fmt: skip
FEWEST = 2  # phrases of a source, even if each is then asked about in fewer wordings
TOO_SHORT = "fewer than 3 key phrases that other conversations leave to it"


@dataclasses.dataclass(frozen=True)
class Augmented:
    """All questions, in the order of the conversations, and what could not be made.

    Attributes:
        questions: training and held-out questions.
        left_out: (conversation's id, reason) -> number of questions missing.
    """

    questions: tuple[LabelledPair, ...]
    left_out: Mapping[tuple[str, str], int]

    def pairs(self, use: str = TRAIN) -> list[QAPair]:
        """The pairs of one use."""
        return [question.pair for question in self.questions if question.use == use]

    def counts(self) -> Counter[tuple[str, str, str]]:
        """(use, kind, source) -> number of questions."""
        return Counter((q.use, q.pair.kind, q.source) for q in self.questions)


def normalised(question: str) -> str:
    """A question without case, space and punctuation: what makes two questions the same."""
    return " ".join(phrases.WORD.findall(question.casefold()))


def extract_pairs(
    conversations: Sequence[Conversation],
    settings: AugmentSettings,
    near: Mapping[str, str] | None = None,
) -> Augmented:
    """Training and held-out questions on conversations, from their key phrases.

    The held-out questions depend on the conversations, `seed`, `near` and `held_out` alone, as long
    as training asks about half as many phrases as are held out: runs that differ in the other
    settings are tested on the same questions.

    Args:
        conversations: all of one user, in the order of time.
        near: id -> id of the conversation whose phrases are nearest; else by TF-IDF.

    Raises:
        InputError: no conversation gives questions, or the negatives need more of them.
    """
    if not conversations:
        raise InputError("no conversations are given; questions need at least one")
    if settings.negatives in (NEAR, RANDOM) and len(conversations) == 1:
        raise InputError(
            f"negatives {settings.negatives!r} need other conversations, one is given: use "
            "'unrelated'"
        )
    left_out: Counter[tuple[str, str]] = Counter()
    ready = []
    for topic in make_topics(conversations, settings.seed, near or {}, settings.held_out):
        if topic.phrase is None or not topic.trained or not topic.held_out:
            left_out[topic.id, TOO_SHORT] = settings.per_conversation + 2 * settings.held_out
        else:
            ready.append(topic)
    if not ready:
        raise InputError(
            f"none of {len(conversations)} conversations has 3 key phrases to ask about: give "
            "conversations with more text in words"
        )
    fixed: set[str] = set()
    held_out = [_held_out(topic, settings, fixed) for topic in ready]
    questions: list[LabelledPair] = []
    for topic, tests in zip(ready, held_out, strict=True):
        train = _train(topic, settings, set(fixed))
        questions += train + _with_quoted(tests, train, topic)
        left_out.update(_missing(topic, settings, train, tests))
    report(left_out, len(conversations))
    return Augmented(tuple(questions), left_out)


Numbers = tuple[int, int]  # of positives and negatives


def _numbers(settings: AugmentSettings) -> tuple[Numbers, Numbers]:
    """Closed and open training pairs."""
    n_open = round(settings.per_conversation * settings.open_share)
    closed = _split(settings.per_conversation - n_open, settings.positive_share)
    return closed, _split(n_open, settings.positive_share)


def _train(topic: Topic, settings: AugmentSettings, taken: set[str]) -> list[LabelledPair]:
    """The training questions of a conversation."""
    closed, open_ = _numbers(settings)
    draw = random.Random(f"{settings.seed} train {topic.id}")
    maker = _Maker(topic, TRAIN, settings.wordings, draw, taken)
    return maker.closed(topic.pools, FORMS[settings.negatives], closed) + maker.open(open_)


def _held_out(topic: Topic, settings: AugmentSettings, taken: set[str]) -> list[LabelledPair]:
    """Both held-out sets of a conversation; negatives are always mixed.

    The rephrased questions ask about the phrases that training asks about first: of positives and
    of each kind of negatives as many as training has, and two open pairs of either kind.
    """
    closed, _ = _numbers(settings)
    slots = _slots(topic.pools, [(SAID, True)] * closed[0], settings.wordings)
    negatives = _dealt(topic, FORMS[settings.negatives], closed[1])
    slots += _slots(topic.pools, negatives, settings.wordings)
    trained: dict[str, dict[Phrase, None]] = {}
    for source, phrase, _ in slots:
        trained.setdefault(source, {})[phrase] = None
    again = {source: list(trained.get(source, pool)) for source, pool in topic.pools.items()}
    half, draw = settings.held_out // 2, random.Random(f"{settings.seed} held out {topic.id}")
    rephrased = _Maker(topic, REPHRASED, 1, draw, taken)
    new_phrase = dataclasses.replace(rephrased, use=NEW_PHRASE)
    questions = rephrased.closed(again, FORMS["mixed"], (half, half))
    questions += new_phrase.closed(topic.held_out_pools, FORMS["mixed"], (half, half))
    return questions + rephrased.open((2, 2))


def _missing(
    topic: Topic,
    settings: AugmentSettings,
    train: Sequence[LabelledPair],
    tests: Sequence[LabelledPair],
) -> dict[tuple[str, str], int]:
    """(conversation's id, reason) -> number of questions that could not be made."""
    n_negative = _numbers(settings)[0][1]
    n_closed = sum(test.pair.kind in CLOSED for test in tests)
    missing = {
        f"no phrase for {source} negatives, so others are used,": 1
        for source, _ in FORMS[settings.negatives]
        if n_negative and not topic.negatives[source]
    } | {
        "too few phrases for as many pairs": settings.per_conversation - len(train),
        "too few phrases for as many held-out questions": 2 * settings.held_out - n_closed,
    }
    return {(topic.id, reason): n for reason, n in missing.items() if n}


def _with_quoted(
    tests: Sequence[LabelledPair], train: Sequence[LabelledPair], topic: Topic
) -> list[LabelledPair]:
    """The held-out questions; those on new phrases say whether a training answer holds these."""
    answers = [
        frozenset(phrases.content_stems(q.pair.answer)) for q in train if q.pair.kind == "open"
    ]
    quoted = {p.text for p in topic.held_out if any(p.said_in(answer) for answer in answers)}
    return [
        dataclasses.replace(
            q, quoted=q.use == NEW_PHRASE and q.source == SAID and q.phrase in quoted
        )
        for q in tests
    ]


def _split(total: int, positive_share: float) -> tuple[int, int]:
    positive = math.floor(total * positive_share + 0.5)
    return positive, total - positive


def report(left_out: Mapping[tuple[str, str], int], n_conversations: int) -> None:
    """Warn of what could not be made, by reason."""
    reasons: dict[str, list[str]] = {}
    for id, reason in left_out:
        reasons.setdefault(reason, []).append(id)
    for reason, ids in reasons.items():
        log.warning(
            "augmentation: %s in %d of %d conversations, first %s",
            reason, len(ids), n_conversations, ids[0],
        )  # fmt: skip


# -- questions -----------------------------------------------------------------------------------

Slot = tuple[str, Phrase, bool]  # source, phrase, and whether the question names the conversation


def _slots(
    pools: Mapping[str, Sequence[Phrase]], forms: Sequence[Form], wordings: int
) -> list[Slot]:
    """For each form a phrase of its source; a phrase comes `wordings` times where there are enough.

    An empty source gives way to another kind of negatives, whose question must name the
    conversation; without any negatives there are no slots for them.
    """
    full = [source for source in (NEAR, RANDOM, UNRELATED) if pools[source]]
    forms = [
        form if pools[form[0]] else (full[0], True) for form in forms if full or pools[form[0]]
    ]
    phrases_of = {
        source: itertools.cycle(pools[source][: max(FEWEST, math.ceil(total / wordings))])
        for source, total in Counter(source for source, _ in forms).items()
    }
    return [(source, next(phrases_of[source]), named) for source, named in forms]


def _balanced(
    positive: list[LabelledPair], negative: list[LabelledPair], number: tuple[int, int]
) -> list[LabelledPair]:
    """The most of both in the proportion of the two numbers."""
    total = sum(number)
    for n in range(total, 0, -1):
        n_positive, n_negative = _split(n, number[0] / total)
        if n_positive <= len(positive) and n_negative <= len(negative):
            return positive[:n_positive] + negative[:n_negative]
    return []


def _dealt(topic: Topic, forms: Sequence[Form], number: int) -> list[Form]:
    """The forms in turn; each conversation begins at another one, so that few give all in all."""
    start = random.Random(topic.id).randrange(len(forms))
    return [forms[(start + i) % len(forms)] for i in range(number)]


@dataclasses.dataclass(frozen=True)
class _Maker:
    """Makes questions on one conversation.

    Attributes:
        wordings: in which a phrase is asked about.
        taken: normalised questions that may not come again; the new ones are added.
    """

    topic: Topic
    use: str
    wordings: int
    draw: random.Random
    taken: set[str]

    def shuffled(self, kind: str) -> list[str]:
        """The templates of a kind in random order."""
        return self.draw.sample(templates := wording(kind, self.use), len(templates))

    def texts(self, kind: str, phrase: Phrase, named: bool) -> Iterator[str]:
        """All wordings of a question in random order, each body once before any comes twice."""
        bodies, contexts = self.shuffled(kind), self.shuffled("contexts")
        for shift in range(len(contexts) if named else 1):
            for k, body in enumerate(bodies):
                text = body.format(phrase=phrase.text)
                if named:
                    context = contexts[(k + shift) % len(contexts)]
                    text = f"{context.format(topic=self.topic.phrase.text)} {text}"
                yield text[0].upper() + text[1:]

    def is_new(self, text: str) -> bool:
        """Whether a question has not been there; from now on it has."""
        key = normalised(text)
        return key not in self.taken and not self.taken.add(key)

    def fill(
        self, kind: str, slots: Sequence[Slot], answer: Callable[[Phrase], str]
    ) -> list[LabelledPair]:
        """A question for each slot; a slot whose wordings are spent gives none."""
        body = "closed" if kind in CLOSED else "open"
        left = {(phrase, named): self.texts(body, phrase, named) for _, phrase, named in slots}
        questions = []
        for source, phrase, named in slots:
            if text := next(filter(self.is_new, left[phrase, named]), None):
                pair = QAPair(self.topic.id, kind, text, answer(phrase))
                questions.append(LabelledPair(pair, self.use, source, phrase.text))
        return questions

    def closed(
        self, pools: Mapping[str, Sequence[Phrase]], forms: Sequence[Form], number: Numbers
    ) -> list[LabelledPair]:
        """Closed questions, as many as wanted, or fewer in the same balance."""
        dealt = _dealt(self.topic, forms, max(number))
        positive = [(SAID, named) for _, named in dealt[: number[0]]]
        yes, no = (
            self.fill(kind, _slots(pools, slots, self.wordings), lambda _, text=answer: text)
            for (kind, answer), slots in zip(
                CLOSED.items(), (positive, dealt[: number[1]]), strict=True
            )
        )
        return _balanced(yes, no, number)

    def open(self, number: Numbers) -> list[LabelledPair]:
        """Open questions, all naming the conversation: on the whole of it, on phrases that are
        said, answered by a sentence, and on phrases that are not."""
        topic, name = self.topic, self.topic.phrase.text
        quotable = [phrase for phrase in topic.trained if phrase in topic.quotes]
        n_whole = max(1, number[0] // (self.wordings + 1)) if quotable else number[0]
        outline = f"We talked about {listed(phrase.in_answer for phrase in topic.trained[:3])}."
        whole = (template.format(topic=name) for template in self.shuffled("outline"))
        positive = [
            LabelledPair(QAPair(topic.id, "open", text, outline), self.use, SAID, "")
            for text in itertools.islice(filter(self.is_new, whole), min(n_whole, number[0]))
        ]
        if quotable:
            forms = [(SAID, True)] * (number[0] - len(positive))
            slots = _slots({SAID: quotable} | topic.negatives, forms, self.wordings)
            positive += self.fill("open", slots, topic.quotes.__getitem__)

        def denial(phrase: Phrase) -> str:
            return self.draw.choice(bank("questions")["denials"]).format(phrase=phrase.in_answer)

        mixed = itertools.islice(itertools.cycle(FORMS["mixed"]), number[1])
        slots = _slots(topic.pools, [(source, True) for source, _ in mixed], self.wordings)
        return _balanced(positive, self.fill("open-no", slots, denial), number)
