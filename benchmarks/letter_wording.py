"""After which wording does a model give a letter? Mass on the letters and accuracy, without memory.

python benchmarks/letter_wording.py --model NAME --items 6      (6 built-in items of each kind)
"""

from __future__ import annotations

import argparse
import math

from unswayed.data.items import LETTERS, builtin_items
from unswayed.models.load import load_lm
from unswayed.scoring.ask import log_probs
from unswayed.scoring.chat import ChatFormat
from unswayed.scoring.prompts import continuations, option_order

WORDINGS = (
    "Answer:",
    "Answer with the letter only.",
    "Answer with the letter only.\nAnswer:",  # that of --scoring letter
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--items", type=int, default=44, help="of each kind")
    arguments = parser.parse_args()
    bank = builtin_items()
    items = [
        item
        for kind in ("understanding", "management")
        for item in [item for item in bank if item.kind == kind][: arguments.items]
    ]
    lm = load_lm(arguments.model)
    chat = ChatFormat(lm)
    for wording in WORDINGS:
        prompts, candidates = [], []
        for item in items:
            shown = [item.options[i] for i in option_order(item, "letter", 0)]
            lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, shown, strict=False)]
            question = "\n".join([item.scenario, *lines, wording])
            prompts.append(chat.render([{"role": "user", "content": question}]))
            candidates.append([chat.delimiter + text for text in continuations(item, "letter", 0)])
        rows = log_probs(lm, prompts, candidates)
        mass = sum(sum(map(math.exp, row)) for row in rows) / len(rows)
        right = sum(row.index(max(row)) == item.key for row, item in zip(rows, items, strict=True))
        print(f"{wording!r}: mass {mass:.3f}, {right} of {len(items)} right", flush=True)


if __name__ == "__main__":
    main()
