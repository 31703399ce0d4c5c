"""Key phrases of conversations: what was talked about, found without a model.

A phrase is a run of content words between function words and punctuation (Rose et al. 2010,
"Automatic keyword extraction from individual documents", RAKE), kept if its surroundings show a
noun: an article, a possessive or a preposition before it, no object behind it. Phrases are ranked
by the mean TF-IDF weight of their stems over the given conversations. English words are in
`bank/words.yaml`; in a text that hardly uses them every longer word counts as a phrase.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files

import yaml

from unswayed.data.conversations import Conversation

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
SENTENCE = re.compile(r"[^\n.!?。！？]+(?:[.!?。！？]+(?=\S)[^\n.!?。！？]+)*[.!?。！？]*")
FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
MARKER = re.compile(r"^\s*(?:[-*•>#]+|\(?(?:\d{1,2}|[a-zA-Z])[.)])\s+|\*\*|^\s*#+")
CODE = re.compile(r"[=(){}\[\]<>_;\\|#@$^~`\"]|::|//")
CODE_SHARE = 0.08  # of a line's characters; prose stays below it
ENGLISH_SHARE = 0.2  # of a text's words that are function words; English prose has 0.4 to 0.5
MAX_LETTERS = 40  # of a word; longer ones are keys and addresses
MAX_WORDS = 3  # of a phrase; 4 where all are capitalised
BARE_WEIGHT = 0.5  # of a phrase that nothing shows to be a noun phrase
LONG_WEIGHT = 1.5  # of a phrase of several words: it says more than one word


@dataclasses.dataclass(frozen=True)
class Phrase:
    """What a question asks about.

    Attributes:
        stems: stems of its content words, in order; what makes two phrases the same.
        text: as it stands in a question, with its article and seen from the user: "my rye bread".
    """

    stems: tuple[str, ...]
    text: str

    def said_in(self, said: frozenset[str]) -> bool:
        """Whether a text with these stems holds all of the phrase's."""
        return said.issuperset(self.stems)

    @property
    def key(self) -> frozenset[str]:
        """What makes two phrases the same; articles and order do not count."""
        return frozenset(self.stems)

    @property
    def told(self) -> str:
        """As it stands in the model's answer: "your rye bread"."""
        first, space, rest = self.text.partition(" ")
        return {"my": "your", "your": "my"}.get(first, first) + space + rest

    def overlaps(self, other: Phrase) -> bool:
        """Whether one is the same as, or part of, the other."""
        return self.key <= other.key or other.key <= self.key


@functools.cache
def _bank() -> dict[str, frozenset[str]]:
    text = (files("unswayed.plum") / "bank" / "words.yaml").read_text("utf-8")
    return {name: frozenset(words.split()) for name, words in yaml.safe_load(text).items()}


@functools.cache
def _general() -> frozenset[str]:
    return frozenset(map(_stem, _bank()["general"] | _bank()["vague"]))


@functools.cache
def _function_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    pronouns = {"i'm", "i've", "i'd", "i'll", "let", "lets", "let's", "just", "does", "did"}
    return (
        ENGLISH_STOP_WORDS - {"system", "bill", "fire", "mill", "detail"}
        | pronouns
        | (_bank()["determiners"] | _bank()["prepositions"] | _bank()["adverbs"])
    )


@functools.cache
def _stemmer():
    from nltk.stem import SnowballStemmer

    return SnowballStemmer("english")


@functools.lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    """Porter2 (Snowball, English); the possessive is cut off."""
    return _stemmer().stem(re.sub(r"['’]s$", "", word.casefold()))


def _is_function_word(word: str) -> bool:
    plain = word.casefold().replace("’", "'")
    return plain in _function_words() or plain.endswith("n't") or plain.split("'")[0] in (
        "i", "you", "he", "she", "it", "we", "they", "that", "there", "what", "who", "here", "let",
    )  # fmt: skip


def content_stems(text: str) -> list[str]:
    """Stems of the content words of a text, in order."""
    return [_stem(word) for word in WORD.findall(text) if not _is_function_word(word)]


def said(conversation: Conversation) -> frozenset[str]:
    """Stems of everything in a conversation, the parts of hyphenated words included."""
    found: set[str] = set()
    for turn in conversation.turns:
        for word in re.findall(r"[^\W_]+(?:['’][^\W_]+)*", turn["content"]):
            found.add(_stem(word))
        found.update(content_stems(turn["content"]))
    return frozenset(found)


def prose(text: str) -> Iterator[str]:
    """The lines of a text without code and list markers."""
    for line in FENCE.sub("\n", text).split("\n"):
        line = MARKER.sub("", line).strip()
        if line and sum(len(match) for match in CODE.findall(line)) <= CODE_SHARE * len(line):
            yield line


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text's prose, in order; "3.5" and "example.org" are not split."""
    for line in prose(text):
        for match in SENTENCE.finditer(line):
            if sentence := match[0].strip():
                yield sentence


# -- candidates ----------------------------------------------------------------------------------

DETERMINER, POINTER, PREPOSITION, NOTHING = "determiner", "pointer", "preposition", ""
NOUN_FOLLOWS = {"a", "an", "the", "my", "your", "our", "his", "their", "its"}  # never a verb
ADJECTIVE = re.compile(r".{3,}(?:able|ible|ous|less|ical|istic)$")
NOUNS = {"vegetable", "variable", "syllable", "timetable", "statistic"}  # that look like one
MINE = {"assistant": {"your": "my", "my": "your"}, "user": {}}
OTHER_DETERMINERS = {"this", "these", "those", "its", "their", "his", "her", "our"}


@dataclasses.dataclass(frozen=True)
class _Found:
    """One place where a phrase stands."""

    stems: tuple[str, ...]
    text: str
    shown: bool  # its surroundings show a noun


def _words(sentence: str) -> Iterator[list[re.Match[str]]]:
    """The words of a sentence, in stretches with nothing but space between."""
    stretch: list[re.Match[str]] = []
    for match in WORD.finditer(sentence):
        if stretch and not sentence[stretch[-1].end() : match.start()].isspace():
            yield stretch
            stretch = []
        stretch.append(match)
    if stretch:
        yield stretch


def _candidates(sentence: str, role: str) -> Iterator[_Found]:
    """The noun phrases of an English sentence."""
    for stretch in _words(sentence):
        before, start, run = NOTHING, None, []
        for match in [*stretch, None]:
            word = match[0] if match else ""
            small = word.casefold()
            vague = small in _bank()["vague"]
            content = match and not vague and not _is_function_word(word)
            if content and not _is_verb(match, before, run):
                start = start or match
                run.append(match)
                continue
            if match and not run and (vague or _is_adverb(small)):
                start = start or match  # "the best bread" keeps its adjective
                continue
            if run and (found := _phrase(sentence, start, run, before, small, role)):
                yield found
            run, start = [], None
            if small in _bank()["determiners"]:  # "this takes time" is no phrase
                before, start = DETERMINER if small in NOUN_FOLLOWS else POINTER, match
            else:
                before = PREPOSITION if small in _bank()["prepositions"] else NOTHING


def _single_words(sentence: str) -> Iterator[_Found]:
    """The longer words of a sentence in another language, English function words left out."""
    for match in WORD.finditer(sentence):
        word = match[0]
        if not (4 if word.isascii() else 2) <= len(word) <= MAX_LETTERS:
            continue
        if _has_letter(word) and not _is_function_word(word):
            yield _Found((_stem(word),), word, True)


def _is_adverb(small: str) -> bool:
    return len(small) > 5 and small.endswith("ly") and small not in (
        "family", "supply", "assembly", "anomaly", "monopoly", "butterfly",
    )  # fmt: skip


def _is_verb(match: re.Match[str], before: str, run: Sequence[re.Match[str]]) -> bool:
    """Whether a word is a verb, or an adverb, where it stands."""
    word = match[0]
    if _is_adverb(word.casefold()):
        return True
    if word.istitle() and match.start() and not run:  # a name
        return False
    return _verb_form(word.casefold()) and (bool(run) or before != DETERMINER)


def _verb_form(small: str) -> bool:
    """Whether a word is a listed verb or a regular form of one; nouns made of it are not."""
    verbs = _bank()["verbs"]
    if small in verbs:
        return True
    for ending in ("s", "es", "ed", "ing"):
        base = small.removesuffix(ending)
        if base != small and len(base) > 1:
            single = base[:-1] if base[-1] == base[-2] else base  # stopped
            if not verbs.isdisjoint({base, base + "e", single}):
                return True
    return False


def _has_letter(word: str) -> bool:
    return any(letter.isalpha() for letter in word)


def _shortest(word: str) -> int:
    """Letters that a word alone must have: "TV" has enough, "ok" has not."""
    return 2 if word.isupper() or not word.isascii() else 3


def _qualifies(word: str) -> bool:
    """Whether a word at a phrase's end looks like an adjective or participle without its noun."""
    small = word.casefold()
    participle = len(small) > 5 and small.endswith("ed")
    return participle or (small not in NOUNS and bool(ADJECTIVE.match(small)))


def _phrase(
    sentence: str,
    start: re.Match[str],
    run: list[re.Match[str]],
    before: str,
    after: str,
    role: str,
) -> _Found | None:
    if after in _bank()["determiners"] | {"it", "them", "me", "you", "us"}:
        if len(run) == 1 and before != DETERMINER:
            return None
        run = run[:-1] if len(run) > 1 else run  # "the owner leaves the key": leaves is a verb
    while len(run) > 1 and _qualifies(run[-1][0]):
        run = run[:-1]
    words = [match[0] for match in run]
    if len(words) == 1 and _qualifies(words[0]):
        return None
    stems = tuple(_stem(word) for word in words)
    names = all(word[0].isupper() for word in words)
    if len(words) > MAX_WORDS + names or any(len(word) > MAX_LETTERS for word in words):
        return None
    solid = [s for s in stems if s not in _general() and _has_letter(s)]
    if not solid or (len(words) == 1 and len(words[0]) < _shortest(words[0])):
        return None
    inside = run[0].start() > 0
    shown = before != NOTHING or (inside and words[0][0].isupper())
    if len(words) == 1 and not shown:
        return None
    if start.start() < run[0].start() and before not in (DETERMINER, POINTER):
        start = run[0]  # a bare adjective: "best bread"
    text = sentence[start.start() : run[-1].end()]
    first, rest = text.split(" ", 1) if " " in text else (text, "")
    if before in (DETERMINER, POINTER) and rest:
        first = MINE[role].get(first.casefold(), first.casefold())
        if first in OTHER_DETERMINERS:
            first = "the"
        elif first not in _bank()["determiners"] or first in ("which", "whose", "no", "such"):
            return None
    elif start.start() == 0 and first.istitle() and (not rest or rest == rest.lower()):
        first = first.lower() if rest else first
    text = " ".join(f"{first} {rest}".split())
    return _Found(stems, re.sub(r"['’]s$", "", text), shown)


# -- ranking -------------------------------------------------------------------------------------


def vectors(conversations: Sequence[Conversation]):
    """TF-IDF of stems: sparse matrix (conversations, stems) of unit rows, and stem -> column."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    model = TfidfVectorizer(analyzer=content_stems, sublinear_tf=True)
    texts = ["\n".join(turn["content"] for turn in one.turns) for one in conversations]
    if not any(map(content_stems, texts)):
        from scipy.sparse import csr_matrix

        return csr_matrix((len(texts), 1)), {}
    return model.fit_transform(texts), model.vocabulary_


def key_phrases(conversations: Sequence[Conversation]) -> list[list[Phrase]]:
    """The key phrases of each conversation: the one that names it, then the others, best first.

    The first one is that phrase of the first turn, which says what the user came for, whose words
    the conversation repeats most. None of the others is part of it or of another. A list may be
    short or empty: code only, or "hi" and "hello".
    """
    matrix, columns = vectors(conversations)
    return [
        _ranked(one, {stem: row[0, column] for stem, column in columns.items()})
        for one, row in zip(conversations, matrix.tolil(), strict=True)
    ]


def _ranked(conversation: Conversation, weights: dict[str, float]) -> list[Phrase]:
    texts = [(turn["role"], list(sentences(turn["content"]))) for turn in conversation.turns]
    words = [word for _, lines in texts for line in lines for word in WORD.findall(line)]
    english = sum(map(_is_function_word, words)) >= ENGLISH_SHARE * len(words)
    places: dict[tuple[str, ...], list[_Found]] = defaultdict(list)
    for role, lines in texts:
        for line in lines:
            for found in _candidates(line, role) if english else _single_words(line):
                places[found.stems].append(found)

    def score(stems: tuple[str, ...]) -> float:
        weight = sum(weights.get(stem, 0.0) for stem in stems) / len(stems)
        weight *= LONG_WEIGHT if len(stems) > 1 else 1.0
        return weight * (1.0 if any(found.shown for found in places[stems]) else BARE_WEIGHT)

    ranked = []
    for stems in sorted(places, key=lambda stems: (-score(stems), stems)):
        texts_ = Counter(found.text for found in places[stems] if found.shown)
        texts_ = texts_ or Counter(found.text for found in places[stems])
        ranked.append(Phrase(stems, texts_.most_common(1)[0][0]))
    if not ranked:
        return []
    topic = _topic(conversation, ranked, weights)
    others: list[Phrase] = []
    for phrase in ranked:
        if not phrase.key <= topic.key and not any(phrase.overlaps(one) for one in others):
            others.append(phrase)
    return [topic, *others]


def _topic(
    conversation: Conversation, ranked: Sequence[Phrase], weights: dict[str, float]
) -> Phrase:
    counts = Counter(stem for turn in conversation.turns for stem in content_stems(turn["content"]))
    first = " ".join(conversation.turns[0]["content"].casefold().split())

    def place(phrase: Phrase) -> int:  # in the first turn, past the article; -1 if it is not there
        return first.find(phrase.text.split(" ", 1)[-1].casefold())

    def central(phrase: Phrase) -> tuple[float, int]:
        worth = sum(
            counts[stem] * weights.get(stem, 0.0)
            for stem in phrase.stems
            if not re.search(r"\d", stem)  # a number names nothing
        )
        worth *= LONG_WEIGHT if len(phrase.stems) > 1 else 1.0
        return round(worth / len(phrase.stems), 6), -place(phrase)

    return max([phrase for phrase in ranked if place(phrase) >= 0] or ranked, key=central)


def near_first(conversations: Sequence[Conversation]) -> list[list[int]]:
    """For each conversation the places of the others, the most similar first (TF-IDF cosine)."""
    matrix, _ = vectors(conversations)
    similar = (matrix @ matrix.T).toarray()
    return [
        sorted((j for j in range(len(similar)) if j != i), key=lambda j: (-similar[i, j], j))
        for i in range(len(similar))
    ]


def bank_phrases(texts: Iterable[str]) -> list[Phrase]:
    """Phrases written by hand."""
    return [Phrase(tuple(content_stems(text)), text) for text in texts]
