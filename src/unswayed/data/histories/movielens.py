"""MovieLens folders (GroupLens): movies.csv with ratings.csv or tags.csv, the user's own copy."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.data.histories.events import Event, Histories, Task, make_histories
from unswayed.data.tables import csv_rows

log = logging.getLogger(__name__)

N_TAGS = 15
WHOLE = re.compile(r"0|[1-9]\d*")
STARS = ("1", "2", "3", "4", "5")


def read_ratings(folder: str | Path) -> Histories:
    """Rating prediction from 1 to 5 stars; half stars are rounded up, so 0.5 becomes 1.

    Raises:
        InputError: names file, line and column of the first fault.
    """
    folder = Path(folder)
    films = _films(folder)
    rows = []
    for where, row in _rows(folder / "ratings.csv", ("userId", "movieId", "rating", "timestamp")):
        stars = _number(where, "rating", row["rating"])
        if not (0.5 <= stars <= 5 and (2 * stars).is_integer()):
            raise InputError(
                f"{where}: rating is {row['rating']}, the scale is 0.5 to 5 stars in halves"
            )
        id = f"{row['userId']}/{row['movieId']}"
        rows.append((where, _event(where, row, films, str(math.ceil(stars)), id)))
    ask = "How many stars, from 1 to 5, does this person give the film?"
    return make_histories(Task("movielens", ask, STARS, ordinal=True, noun="film"), rows)


def read_tags(folder: str | Path) -> Histories:
    """Tag prediction: the 15 most frequent tags of the file, in lower case; others are left out.

    As many labels as LaMP-2 has (Salemi et al. 2023, arXiv 2304.11406), which tags films as well.
    Equally frequent tags are taken by the alphabet. The rest is counted in a warning, and so is
    what a user gave a film twice at one time, such as Sci-Fi and sci-fi, of which one counts.

    Raises:
        InputError: names file, line and column of the first fault.
    """
    folder = Path(folder)
    films = _films(folder)
    path = folder / "tags.csv"
    columns = ("userId", "movieId", "tag", "timestamp")
    read = [
        (where, row | {"tag": row["tag"].strip().lower()}) for where, row in _rows(path, columns)
    ]
    once: dict[tuple[str, ...], tuple[str, dict[str, str]]] = {}
    for where, row in read:
        once.setdefault(tuple(row[column] for column in columns), (where, row))
    rows = list(once.values())
    if len(rows) < len(read):
        log.warning("%s: left out %d repeated tags", path, len(read) - len(rows))
    counts = Counter(row["tag"] for _, row in rows)
    labels = tuple(sorted(counts, key=lambda tag: (-counts[tag], tag))[:N_TAGS])
    left = len(rows) - sum(counts[tag] for tag in labels)
    if left:
        log.warning(
            "%s: left out %d of %d events, whose tags are not among the %d most frequent",
            path,
            left,
            len(rows),
            len(labels),
        )
    ask = f"Which of these tags does this person give the film: {', '.join(labels)}?"
    return make_histories(
        Task("movielens-tags", ask, labels, ordinal=False, noun="film"),
        [
            (where, _event(where, row, films, row["tag"], ""))
            for where, row in rows
            if row["tag"] in labels
        ],
    )


def _films(folder: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """movieId -> what the model reads of the film, and its genres."""
    films = {}
    for where, row in _rows(folder / "movies.csv", ("movieId", "title", "genres")):
        if row["movieId"] in films:
            raise InputError(f"{where}: movieId {row['movieId']} is there twice: remove one")
        genres = () if row["genres"].startswith("(no ") else tuple(row["genres"].split("|"))
        of = f" of the genre{'s' * (len(genres) > 1)} {', '.join(genres)}" if genres else ""
        films[row["movieId"]] = (f"{row['title']}, a film{of}", genres)
    return films


def _event(where: str, row: dict[str, str], films: dict, response: str, id: str) -> Event:
    if row["movieId"] not in films:
        raise InputError(f"{where}: movieId {row['movieId']} is not in movies.csv")
    query, genres = films[row["movieId"]]
    time = _number(where, "timestamp", row["timestamp"])
    return Event(row["userId"], time, query, response, genres, row["movieId"], id)


def _number(where: str, column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: {column} is {text!r}, it must be a number") from None


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of each row of a CSV file, with every one of the columns filled."""
    if not path.exists() and path.with_suffix(".dat").exists():
        raise InputError(
            f"{path}: no such file; of MovieLens the releases with .csv files are read, such as "
            "ml-latest-small and ml-25m, not those with .dat files"
        )
    for where, row in csv_rows(path):
        if missing := [name for name in columns if name not in row]:
            need = ", ".join(columns)
            raise InputError(f"{where}: {missing[0]} is missing; needed are {need}")
        for name in ("userId", "movieId"):
            if name in columns and not WHOLE.fullmatch(row[name]):
                raise InputError(
                    f"{where}: {name} is {row[name]!r}, it must be a whole number such as 17"
                )
        if broken := [name for name in columns if "\n" in row[name]]:
            raise InputError(
                f"{where}: {broken[0]} has several lines; look for a quote that is not closed"
            )
        yield where, row
