"""Preference pairs for training: read, drawn, checked, put in order.

Of a dataset nothing but prompt, chosen and rejected is used.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypedDict

from unswayed.core.errors import InputError
from unswayed.core.ledger import digest
from unswayed.data.hub import read_dataset
from unswayed.data.rows import say_left_out
from unswayed.mitigation.dpo.rows import NotLearnable, PreferencePair, preference_pair
from unswayed.scoring.chat import with_answers

PARTS = ("prompt", "chosen", "rejected")


# -- reading -------------------------------------------------------------------------------------


def read_splits(source: str, config: str | None = None) -> dict[str, list[PreferencePair]]:
    """The pairs of a dataset by split; `train` is there.

    Args:
        source: a folder, a Hub id, or hub:OWNER/NAME[:CONFIG][@REVISION].
        config: of the dataset, if the source names none.

    Raises:
        InputError: it cannot be loaded, has no training pairs, or a row is no pair.
    """
    try:
        splits = read_dataset(source, config)
    except InputError as error:
        raise InputError(
            f"{error} (`make preferences` builds one into runs/datasets/persona_preferences)"
        ) from error
    if "train" not in splits:
        raise InputError(f"dataset {source} has no split train, only {', '.join(splits)}")
    return {split: _pairs(rows, f"{source}, {split}") for split, rows in splits.items()}


def _pairs(rows: Sequence[dict[str, Any]], source: str) -> list[PreferencePair]:
    """The pairs of a split; rows that teach nothing are left out and counted in a warning."""
    pairs, left_out = [], []
    for number, row in enumerate(rows, start=1):
        try:
            pairs.append(preference_pair(row))
        except NotLearnable as reason:
            left_out.append(f"{number} ({reason})")
        except InputError as error:
            raise InputError(f"{source} row {number}: {error}") from None
    if left_out and not pairs:
        raise InputError(f"{source}: no row can be trained on, such as row {left_out[0]}")
    say_left_out(source, "rows", left_out, len(rows))
    return pairs


def training_pairs(
    pairs: Sequence[PreferencePair],
    n_pairs: int | None,
    mixed: Sequence[PreferencePair] = (),
    mix_share: float = 0.0,
    seed: int = 0,
) -> list[PreferencePair]:
    """Pairs drawn by the seed, and as many of `mixed` as make up `mix_share` of all.

    Raises:
        InputError: there are fewer than are to be drawn, or none.
    """
    rng = random.Random(seed)
    drawn = _draw(pairs, len(pairs) if n_pairs is None else n_pairs, "the dataset", rng)
    if not drawn:
        raise InputError("no pair is left to train on: build more, or take another config")
    return drawn + _draw(mixed, round(mix_share / (1 - mix_share) * len(drawn)), "mix", rng)


def _draw(
    pairs: Sequence[PreferencePair], count: int, name: str, rng: random.Random
) -> list[PreferencePair]:
    if count > len(pairs):
        raise InputError(f"{count} pairs are to be drawn from {name}, which has only {len(pairs)}")
    return [pairs[i] for i in sorted(rng.sample(range(len(pairs)), count))]


def pairs_hash(pairs: Sequence[PreferencePair]) -> str:
    """SHA-256 of the pairs, in their order."""
    return digest(list(pairs), ensure_ascii=False)


# -- for a model ---------------------------------------------------------------------------------


class EncodedPair(TypedDict):
    """Token ids of a pair as the trainer reads it: a prompt, and its answers with their end."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


def encoded(pairs: Sequence[PreferencePair], tokenizer: Any) -> list[EncodedPair]:
    """The pairs as the model reads them in an audit (`chat.with_answers`).

    Raises:
        InputError: the chat template refuses, drops or changes a message.
    """
    rows: list[EncodedPair] = []
    for pair in pairs:
        answers = [pair[part][0]["content"] for part in PARTS[1:]]
        prompt, (chosen, rejected) = with_answers(tokenizer, pair["prompt"], answers)
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return rows


def check_lengths(
    pairs: Sequence[PreferencePair],
    rows: Sequence[EncodedPair],
    limits: dict[str, int | None],
    name: str,
) -> None:
    """No pair is longer than a limit, in tokens of prompt and answer.

    Args:
        rows: the pairs, encoded.
        limits: name of a limit -> tokens, or None.
        name: of the pairs, for the error.

    Raises:
        InputError: names the pair, its length and the limit.
    """
    limits = {what: limit for what, limit in limits.items() if limit is not None}
    if not limits:
        return
    what, limit = min(limits.items(), key=lambda item: item[1])
    for i, (pair, row) in enumerate(zip(pairs, rows, strict=True), start=1):
        if (length := pair_length(row)) > limit:
            raise InputError(
                f"{name} pair {i} has {length} tokens, more than the limit of {limit} ({what}); "
                "nothing is cut: drop the pair, or raise the limit if the model can take it "
                f"(its prompt ends {pair['prompt'][-1]['content'][-60:]!r})"
            )


def pair_length(row: EncodedPair) -> int:
    """Tokens of a pair's prompt with its longer answer."""
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def without_memory(pair: PreferencePair) -> PreferencePair:
    """The pair with the question alone."""
    return pair | {"prompt": [m for m in pair["prompt"] if m["role"] != "system"]}


# -- order ---------------------------------------------------------------------------------------


def by_persona(pairs: Sequence[PreferencePair], batch_size: int, seed: int) -> list[PreferencePair]:
    """A random order in which pairs under one memory follow each other, as far as whole batches do.

    The groups are laid end to end and cut into batches, which are then shuffled; a short batch
    stays the last.
    """
    rng = random.Random(seed)
    groups: dict[str, list[PreferencePair]] = defaultdict(list)
    for pair in pairs:
        groups[memory_of(pair)].append(pair)
    for group in groups.values():
        rng.shuffle(group)
    by_memory = list(groups.values())
    rng.shuffle(by_memory)
    flat = [pair for group in by_memory for pair in group]
    batches = [flat[i : i + batch_size] for i in range(0, len(flat), batch_size)]
    last = [batches.pop()] if len(flat) % batch_size else []
    rng.shuffle(batches)
    return [pair for batch in batches + last for pair in batch]


def memory_of(pair: PreferencePair) -> str:
    """What the model knows and has heard before the question."""
    return json.dumps(pair["prompt"][:-1])
