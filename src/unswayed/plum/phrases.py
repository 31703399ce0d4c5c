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

from unswayed.data.conversations import Conversation
from unswayed.plum.words import word_set

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
PART = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # of a hyphenated word too
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

    def said_in(self, stems: frozenset[str]) -> bool:
        """Whether a text with these stems holds all of the phrase's."""
        return stems.issuperset(self.stems)

    @property
    def key(self) -> frozenset[str]:
        """What makes two phrases the same; articles and order do not count."""
        return frozenset(self.stems)

    @property
    def in_answer(self) -> str:
        """As it stands in the model's answer: "your rye bread"."""
        first, space, rest = self.text.partition(" ")
        return {"my": "your", "your": "my"}.get(first, first) + space + rest

    def overlaps(self, other: Phrase) -> bool:
        """Whether one is the same as, or part of, the other."""
        return self.key <= other.key or other.key <= self.key


@functools.cache
def _general() -> frozenset[str]:
    return frozenset(map(_stem, word_set("general") | word_set("vague")))


@functools.cache
def _function_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    lists = ("function", "determiners", "prepositions", "adverbs")
    return (ENGLISH_STOP_WORDS - word_set("content")).union(*map(word_set, lists))


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
    contracted = plain.endswith("n't") or plain.split("'")[0] in word_set("contracted")
    return contracted or plain in _function_words()


def content_stems(text: str) -> list[str]:
    """Stems of the content words of a text, in order."""
    return [_stem(word) for word in WORD.findall(text) if not _is_function_word(word)]


def spoken_stems(conversation: Conversation) -> frozenset[str]:
    """Stems of everything in a conversation, the parts of hyphenated words included."""
    stems: set[str] = set()
    for turn in conversation.turns:
        stems.update(map(_stem, PART.findall(turn["content"])), content_stems(turn["content"]))
    return frozenset(stems)


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
ADJECTIVE = re.compile(r".{3,}(?:able|ible|ous|less|ical|istic)$")
MINE = {"assistant": {"your": "my", "my": "your"}, "user": {}}


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a phrase stands."""

    stems: tuple[str, ...]
    text: str
    is_noun: bool  # its surroundings show a noun


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


def _candidates(sentence: str, role: str) -> Iterator[_Place]:
    """The noun phrases of an English sentence."""
    for stretch in _words(sentence):
        before, start, run = NOTHING, None, []
        for match in [*stretch, None]:
            word = match[0] if match else ""
            small = word.casefold()
            vague = small in word_set("vague")
            content = match and not vague and not _is_function_word(word)
            if content and not _is_verb(match, before, run):
                start = start or match
                run.append(match)
                continue
            if match and not run and (vague or _is_adverb(small)):
                start = start or match  # "the best bread" keeps its adjective
                continue
            if run and (place := _phrase(sentence, start, run, before, small, role)):
                yield place
            run, start = [], None
            if small in word_set("determiners"):  # "this takes time" is no phrase
                before, start = DETERMINER if small in word_set("articles") else POINTER, match
            else:
                before = PREPOSITION if small in word_set("prepositions") else NOTHING


def _single_words(sentence: str) -> Iterator[_Place]:
    """The longer words of a sentence in another language, English function words left out."""
    for match in WORD.finditer(sentence):
        word = match[0]
        if not (4 if word.isascii() else 2) <= len(word) <= MAX_LETTERS:
            continue
        if _has_letter(word) and not _is_function_word(word):
            yield _Place((_stem(word),), word, True)


def _is_adverb(small: str) -> bool:
    return len(small) > 5 and small.endswith("ly") and small not in word_set("nouns")


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
    verbs = word_set("verbs")
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
    return participle or (small not in word_set("nouns") and bool(ADJECTIVE.match(small)))


def _phrase(
    sentence: str,
    start: re.Match[str],
    run: list[re.Match[str]],
    before: str,
    after: str,
    role: str,
) -> _Place | None:
    """The phrase that a run of content words makes, if it makes one.

    Args:
        start: where it may begin, at a determiner or an adjective.
        before: what kind of word stands there.
        after: the word behind it, in small letters.
        role: who speaks.
    """
    run = _without_verb(run, before, after)
    words = [match[0] for match in run]
    stems = tuple(map(_stem, words))
    if not words or not _says_enough(words, stems):
        return None
    is_noun = before != NOTHING or (run[0].start() > 0 and words[0][0].isupper())
    if len(words) == 1 and not is_noun:
        return None
    if start.start() < run[0].start() and before not in (DETERMINER, POINTER):
        start = run[0]  # a bare adjective: "best bread"
    text = sentence[start.start() : run[-1].end()]
    text = _from_user(text, before in (DETERMINER, POINTER), start.start() == 0, role)
    return text and _Place(stems, re.sub(r"['’]s$", "", text), is_noun)


def _without_verb(run: list[re.Match[str]], before: str, after: str) -> list[re.Match[str]]:
    """The run without a verb, adjective or participle at its end; [] if nothing else is left."""
    if after in word_set("determiners") | word_set("objects"):
        if len(run) == 1 and before != DETERMINER:
            return []
        run = run[:-1] if len(run) > 1 else run  # "the owner leaves the key": leaves is a verb
    while len(run) > 1 and _qualifies(run[-1][0]):
        run = run[:-1]
    return [] if len(run) == 1 and _qualifies(run[0][0]) else run


def _says_enough(words: Sequence[str], stems: Sequence[str]) -> bool:
    """Whether words can be asked about: neither too many or too long nor too general or short."""
    all_names = all(word[0].isupper() for word in words)
    if len(words) > MAX_WORDS + all_names or any(len(word) > MAX_LETTERS for word in words):
        return False
    solid = any(stem not in _general() and _has_letter(stem) for stem in stems)
    return solid and (len(words) > 1 or len(words[0]) >= _shortest(words[0]))


def _from_user(text: str, determined: bool, opens: bool, role: str) -> str | None:
    """A phrase seen from the user, whoever speaks; None where its determiner allows no phrase.

    Args:
        determined: it begins with a determiner.
        opens: it opens the sentence.
    """
    first, _, rest = text.partition(" ")
    if determined and rest:
        first = MINE[role].get(first.casefold(), first.casefold())
        if first in word_set("other_determiners"):
            first = "the"
        elif first not in word_set("determiners") or first in word_set("no_phrase"):
            return None
    elif opens and first.istitle() and (not rest or rest == rest.lower()):
        first = first.lower() if rest else first
    return " ".join(f"{first} {rest}".split())


# -- ranking -------------------------------------------------------------------------------------


def vectors(conversations: Sequence[Conversation]):
    """TF-IDF of stems: sparse matrix (conversations, stems) of unit rows, and stem -> column."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    model = TfidfVectorizer(analyzer=content_stems, sublinear_tf=True)
    texts = ["\n".join(turn["content"] for turn in talk.turns) for talk in conversations]
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
        _ranked(talk, {stem: row[0, column] for stem, column in columns.items()})
        for talk, row in zip(conversations, matrix.tolil(), strict=True)
    ]


def _ranked(conversation: Conversation, weights: dict[str, float]) -> list[Phrase]:
    texts = [(turn["role"], list(sentences(turn["content"]))) for turn in conversation.turns]
    words = [word for _, lines in texts for line in lines for word in WORD.findall(line)]
    english = sum(map(_is_function_word, words)) >= ENGLISH_SHARE * len(words)
    places: dict[tuple[str, ...], list[_Place]] = defaultdict(list)
    for role, lines in texts:
        for line in lines:
            for place in _candidates(line, role) if english else _single_words(line):
                places[place.stems].append(place)

    def score(stems: tuple[str, ...]) -> float:
        weight = sum(weights.get(stem, 0.0) for stem in stems) / len(stems)
        weight *= LONG_WEIGHT if len(stems) > 1 else 1.0
        return weight * (1.0 if any(place.is_noun for place in places[stems]) else BARE_WEIGHT)

    ranked = []
    for stems in sorted(places, key=lambda stems: (-score(stems), stems)):
        nouns = [place for place in places[stems] if place.is_noun]
        wordings = Counter(place.text for place in nouns or places[stems])
        ranked.append(Phrase(stems, wordings.most_common(1)[0][0]))
    if not ranked:
        return []
    topic = _topic(conversation, ranked, weights)
    apart: list[Phrase] = []
    for phrase in ranked:
        if not phrase.key <= topic.key and not any(map(phrase.overlaps, apart)):
            apart.append(phrase)
    return [topic, *apart]


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
