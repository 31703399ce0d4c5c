"""Items: questions of emotional tests, the built-in bank, and readers for other people's files.

The built-in bank (`bank/*.jsonl`) is the project's own writing, in the generic form that any user
file may take too; see docs/items.md. The instruments STEU and STEM (MacCann & Roberts 2008) and
EmoBench (Sabour et al. 2024) are read from the user's own copy and are never part of this package.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.data.hub import HUB, read_dataset

log = logging.getLogger(__name__)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KINDS = ("understanding", "management")
BUILTIN = "builtin"


@dataclasses.dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique within its test.
        test: name of the instrument, e.g. "understanding", "steu".
        kind: "understanding" (which emotion) or "management" (which action).
        scenario: the text that is asked, its question included.
        options: two or more answers, all different.
        key: index of the best option.
        weights: expert effectiveness of each option in [0, 1] (management); for understanding
            items 1 for the key and 0 elsewhere.
        persona_invariant: False if annotators found that the answer may depend on who asks.
        rationale: why the key is right.
    """

    id: str
    test: str
    kind: str
    scenario: str
    options: tuple[str, ...]
    key: int
    weights: tuple[float, ...]
    persona_invariant: bool = True
    rationale: str = ""


def builtin_items() -> list[Item]:
    """The project's own bank: 45 understanding and 44 management items."""
    bank = files("unswayed.data.items") / "bank"
    return [
        item for kind in KINDS for item in read_items(Path(str(bank / f"{kind}.jsonl")), test=kind)
    ]


def load_items(specs: Iterable[str]) -> list[Item]:
    """Items of one or more specs, in order.

    Args:
        specs: each "builtin", a built-in test's name ("understanding", "management"), or NAME=FILE.
            NAME steu, stem, emobench_eu or emobench_ea selects that reader; any other name the
            generic form. FILE may also be a folder or a Hub dataset, hub:owner/name, with the same
            fields as columns.

    Raises:
        InputError: unknown spec, missing or malformed file, or ids that occur twice in a test.
    """
    items: list[Item] = []
    for spec in specs:
        name, _, path = spec.partition("=")
        if name and path:
            items += read_items(path, test=name)
        elif name == BUILTIN:
            items += builtin_items()
        elif name in KINDS:
            items += [item for item in builtin_items() if item.test == name]
        else:
            raise InputError(
                f"--items {spec}: not one of {', '.join((BUILTIN, *KINDS))}; "
                "for a file write NAME=FILE, e.g. steu=steu.jsonl"
            )
    seen: set[tuple[str, str]] = set()
    for item in items:
        if (item.test, item.id) in seen:
            raise InputError(f"--items: test {item.test} has the id {item.id!r} twice")
        seen.add((item.test, item.id))
    return items


def read_items(path: str | Path, test: str) -> list[Item]:
    """Items of a JSONL or CSV file, or of a dataset; `test` names the instrument and its reader.

    Raises:
        InputError: names file and line of the first fault.
    """
    reader = READERS.get(test, _generic)
    items: list[Item] = []
    lines: dict[str, int] = {}
    skipped: list[str] = []
    for number, row in rows_of(path):
        where = f"{path}:{number}"
        try:
            item = reader(row, test)
        except KeyError as error:
            raise InputError(f"{where}: field {error} is missing") from None
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except (TypeError, AttributeError, ArithmeticError) as error:
            raise InputError(f"{where}: not in the form of {test} ({error})") from None
        if isinstance(item, str):
            skipped.append(item)
            continue
        if item.id in lines:
            raise InputError(f"{where}: id {item.id!r} is already used in line {lines[item.id]}")
        lines[item.id] = number
        items.append(item)
    if skipped:
        shown = [*skipped[:5], "..."] if len(skipped) > 5 else skipped
        total = len(skipped) + len(items)
        log.warning("%s: left out %d of %d items: %s", path, len(skipped), total, ", ".join(shown))
    if not items:
        raise InputError(f"{path}: holds no items")
    return items


def keep_invariant(items: Iterable[Item], decisions: Path | None = None) -> list[Item]:
    """Items whose answer must not depend on who asks.

    Args:
        items: all items.
        decisions: annotators' decisions, a JSONL or CSV file with `id` and `persona_invariant` and
            optionally `test`; they override the items' own flag.

    Raises:
        InputError: a decision on an unknown item, or nothing is left.
    """
    items = list(items)
    flags = {(item.test, item.id): item.persona_invariant for item in items}
    if decisions is not None:
        lines: dict[tuple[str, str], int] = {}
        for number, row in rows_of(decisions):
            where = f"{decisions}:{number}"
            if "id" not in row or "persona_invariant" not in row:
                raise InputError(f"{where}: needs the fields id and persona_invariant")
            id = str(row["id"]).strip()
            named = [k for k in flags if k[1] == id and row.get("test") in (None, "", k[0])]
            if not named:
                raise InputError(f"{where}: no item has the id {row['id']!r}")
            flag = _flag(row["persona_invariant"], where)
            for key in named:
                if key in lines and flags[key] != flag:
                    raise InputError(
                        f"{where}: contradicts line {lines[key]} on {id!r}; "
                        "give one decision for each item"
                    )
                flags[key], lines[key] = flag, number
    kept = [item for item in items if flags[item.test, item.id]]
    if not kept:
        raise InputError("no persona-invariant item is left")
    return kept


def items_hash(items: Iterable[Item]) -> str:
    """SHA-256 of everything that the model and the scoring see of the items, in order."""
    text = json.dumps([dataclasses.astuple(item)[:7] for item in items], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def make_item(
    test: str,
    id: str,
    kind: str,
    scenario: str,
    options: Sequence[str],
    key: str | int,
    weights: Iterable[float] | None = None,
    persona_invariant: bool = True,
    rationale: str = "",
) -> Item:
    """An item from loose parts, checked.

    Args:
        key: text of the best option, its letter (A is the first), or its index from 0.

    Raises:
        InputError: says which part is wrong and what was given.
    """
    if not isinstance(options, (list, tuple)):
        raise InputError(f"options of {id} must be a list, got {options!r}")
    for option in options:
        if not isinstance(option, (str, int, float)):
            raise InputError(f"an option of {id} is {option!r}, it must be a text")
    options = tuple(str(option).strip() for option in options)
    if not str(id).strip():
        raise InputError("id is empty")
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, it must be one of {', '.join(KINDS)}")
    if not isinstance(scenario, str) or not scenario.strip():
        raise InputError(f"scenario of {id} is empty or not text")
    if len(options) < 2:
        raise InputError(f"{id} has {len(options)} option(s), it needs at least two")
    if len(options) > len(LETTERS):
        raise InputError(f"{id} has {len(options)} options, at most {len(LETTERS)} can be lettered")
    if "" in options:
        raise InputError(f"an option of {id} is empty")
    if len(set(options)) < len(options):
        raise InputError(f"{id} has the same option twice: {', '.join(options)}")
    index = _key_index(key, options, id)
    if weights is None:
        weights = [float(i == index) for i in range(len(options))]
    try:
        weights = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"weights of {id} are not numbers: {weights!r}") from None
    if len(weights) != len(options) or not all(0 <= weight <= 1 for weight in weights):
        raise InputError(f"{id} needs {len(options)} weights between 0 and 1, got {list(weights)}")
    if max(weights) != weights[index]:
        raise InputError(f"the key of {id} is not the option with the largest weight")
    return Item(
        str(id).strip(), test, kind, scenario.strip(), options, index, weights,
        persona_invariant, rationale,
    )  # fmt: skip


def _key_index(key: str | int, options: tuple[str, ...], id: str) -> int:
    if isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(options):
        return key
    text = str(key).strip()
    if text in options:
        return options.index(text)
    if len(text) == 1 and text.upper() in LETTERS[: len(options)]:
        return LETTERS.index(text.upper())
    raise InputError(f"key {key!r} of {id} is not among its options: {', '.join(options)}")


def _dataset_rows(source: str) -> Iterable[tuple[int, dict]]:
    """Rows of a dataset on the Hub or in a folder: its split `test`, else its only one."""
    splits = read_dataset(source)
    if "test" not in splits and len(splits) > 1:
        raise InputError(f"dataset {source} has no split test, only {', '.join(splits)}")
    rows = splits["test"] if "test" in splits else next(iter(splits.values()))
    for number, row in enumerate(rows, start=1):
        yield number, {key: value for key, value in row.items() if value is not None}


def _flag(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if (text := str(value).strip().lower()) in ("true", "1", "yes"):
        return True
    if text in ("false", "0", "no"):
        return False
    raise InputError(f"{where}: persona_invariant is {value!r}, it must be true or false")


def rows_of(source: str | Path) -> Iterable[tuple[int, dict]]:
    """(line number, fields) of a JSONL or CSV file, or (row number, fields) of a dataset."""
    path = Path(source)
    if str(source).startswith(HUB) or path.is_dir():
        yield from _dataset_rows(str(source))
        return
    text = read_text(path)
    if path.suffix.lower() == ".csv":
        # Not splitlines(): it also splits at U+2028, U+0085 and six more, inside cells.
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            for row in reader:
                if None in row:
                    raise InputError(f"{path}:{reader.line_num}: more values than columns")
                yield reader.line_num, {k: v for k, v in row.items() if v not in (None, "")}
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from None
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: a JSON object is needed, got {line[:40]!r}")
        yield number, {k: v for k, v in row.items() if v is not None}


# -- readers: one row -> an item, or the id and reason of one that is left out -------------------


def _generic(row: dict, test: str) -> Item:
    """The generic form, JSONL or CSV (there, options and weights are separated by |)."""

    def several(value: object) -> list:
        if isinstance(value, str):
            return value.split("|")
        if isinstance(value, list):
            return value
        raise InputError(f"options and weights must be lists, got {value!r}")

    weights = row.get("weights")
    return make_item(
        test=test,
        id=row["id"],
        kind=row.get("kind") or ("understanding" if weights is None else "management"),
        scenario=row["scenario"],
        options=several(row["options"]),
        key=row["key"],
        weights=None if weights is None else several(weights),
        persona_invariant=_flag(row.get("persona_invariant", True), str(row["id"])),
        rationale=str(row.get("rationale", "")),
    )


def _steu(row: dict, test: str) -> Item | str:
    if row.get("key_ambiguous") or len(row["key"]) != 1:
        return f"{row['id']} (key {row['key']} is ambiguous)"
    return make_item(test, row["id"], "understanding", row["text"], row["options"], row["key"])


def _stem(row: dict, test: str) -> Item | str:
    """Weights: STEM-B's expert twelfths over their maximum where the file has them, else the
    reciprocal rank in the experts' order (1, 1/2, 1/3; 0 if unranked). The second is our choice."""
    if len(row["best"]) != 1:
        return f"{row['id']} (key {row['best']} is ambiguous)"
    if twelfths := row.get("stem_b_expert_twelfths"):
        weights = [value / max(twelfths) for value in twelfths]
    else:
        rank = {letter: i for i, letter in enumerate(row["ranked_key"])}
        weights = [1 / (rank[x] + 1) if x in rank else 0.0 for x in row["letters"]]
    return make_item(
        test, row["id"], "management", row["text"], row["options"], row["best"], weights
    )


def _emobench(row: dict, test: str) -> Item | str:
    """EmoBench EU (emotion question) and EA; labels are texts, as in the authors' files."""
    id = f"{row.get('language', 'en')}_{row['qid']}"
    if row.get("language", "en") != "en":
        return f"{id} (not English)"
    subject = "I" if row["subject"] in ("I", "me") else row["subject"]
    if test == "emobench_eu":
        ask = f"What emotion(s) would {subject} ultimately feel in this situation?"
        return make_item(test, id, "understanding", f"{row['scenario']}\n{ask}",
                         row["emotion_choices"], row["emotion_label"])  # fmt: skip
    asked = row["question type"].lower()
    ask = f"In this scenario, what is the most effective {asked} for {subject}?"
    return make_item(
        test, id, "management", f"{row['scenario']}\n{ask}", row["choices"], row["label"]
    )


READERS: dict[str, Callable[[dict, str], Item | str]] = {
    "steu": _steu,
    "stem": _stem,
    "emobench_eu": _emobench,
    "emobench_ea": _emobench,
}
