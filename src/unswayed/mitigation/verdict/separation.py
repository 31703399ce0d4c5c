"""Whether training saw what the audit asks: its items, or its users."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unswayed.core.cards import CARD
from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.data.items import Item
from unswayed.data.personas import Persona
from unswayed.mitigation.dpo.pairs import PreferencePair
from unswayed.mitigation.overlap import RUN, WHOLE, shared_runs

DISTANCE = re.compile(r"^## Distance to the test items\n(.*?)(?=^## |\Z)", re.M | re.S)
FIGURE = re.compile(r"^\* (.+): (\S+)$", re.M)


def check_items(pairs: Sequence[PreferencePair], items: Sequence[Item]) -> dict[str, Any]:
    """No training pair, its memory included, shares a run of words with an item.

    Returns:
        {"pairs", "items": how many were compared, "run": fewest words of a run, "whole": fewest
        words of an option that counts if it occurs whole, "shared": 0}.

    Raises:
        InputError: names a pair, the words and the item.
    """
    texts = ["\n".join(m["content"] for part in pair.values() for m in part) for pair in pairs]
    for number, (run, item) in enumerate(shared_runs(texts, items), start=1):
        if run:
            raise InputError(
                f"training pair {number} shares the words {' '.join(run)!r} with the item {item}: "
                "leave that pair out, e.g. build the pairs again with --against and these items"
            )
    return {"pairs": len(pairs), "items": len(items), "run": RUN, "whole": WHOLE, "shared": 0}


def unseen_pairs(
    personas: Sequence[Persona], pairs: Sequence[PreferencePair], n_pairs: int | None
) -> int:
    """How many of the first base personas the audit asks about; training saw none of them.

    Args:
        n_pairs: that many; None takes all up to the first that training saw.

    Raises:
        InputError: training saw one of them, or the personas are a grid.
    """
    ids = list(dict.fromkeys(persona.pair_id for persona in personas))
    if None in ids:
        raise InputError("--personas grid has no persona pairs, by which runs are compared")
    seen = seen_pairs(personas, pairs)
    spared = next((i for i, pair_id in enumerate(ids) if pair_id in seen), len(ids))
    if n_pairs is not None and spared < n_pairs <= len(ids):
        raise InputError(
            f"--pairs {n_pairs}: training saw the user {ids[spared]}; only the first {spared} base "
            "personas are in no training pair: give at most that many, or build the pairs with "
            f"--spare_pairs {n_pairs}"
        )
    if not spared:
        raise InputError(
            f"training saw the first base persona, {ids[0]}, so no user is left to ask about: "
            "build the pairs with --spare_pairs 15, or name other --personas"
        )
    return spared if n_pairs is None else n_pairs


def seen_pairs(personas: Sequence[Persona], pairs: Sequence[PreferencePair]) -> set[str]:
    """Base personas of which a version stands in a training prompt, all of its texts in one."""
    prompts = {"\n".join(m["content"] for m in pair["prompt"]) for pair in pairs}
    return {
        persona.pair_id
        for persona in personas
        for texts in ([text for _, text in persona.texts(voice)] for voice in (False, True))
        if any(all(text in prompt for text in texts) for prompt in prompts)
    }


def card_distance(dataset: str) -> dict[str, Any] | None:
    """What the card of a local preference tree says of its distance to test items.

    Returns:
        {"figures": name -> number, "text": what was dropped, against which items}; None if there
        is no such card.
    """
    card = Path(dataset) / CARD
    section = DISTANCE.search(read_text(card)) if card.is_file() else None
    if not section:
        return None
    figures = {name: float(value) for name, value in FIGURE.findall(section[1])}
    return {"figures": figures, "text": " ".join(FIGURE.sub("", section[1]).split())}
