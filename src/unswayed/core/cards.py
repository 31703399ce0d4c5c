"""Cards of repositories on the Hub: README.md, YAML metadata in front of Markdown."""

from __future__ import annotations

from typing import Any

CARD = "README.md"  # the card of a repository on the Hub


def read_metadata(card: str) -> Any:
    """What the YAML between a card's first two lines `---` holds, {} if there is none.

    Returns:
        A dict, if the card is in the Hub's form.

    Raises:
        yaml.YAMLError: it is not YAML; `problem_mark.line` counts from the line after the first.
    """
    import yaml
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(card)
    metadata = yaml.safe_load(block[2]) if block else None
    return {} if metadata is None else metadata


def with_metadata(card: str, metadata: dict[str, Any]) -> str:
    """The card with other metadata, to the byte as it is if they are the same; its text stays."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK
    from huggingface_hub.utils import yaml_dump

    if metadata == read_metadata(card):
        return card
    front = yaml_dump(metadata, sort_keys=False).rstrip("\n")
    if block := REGEX_YAML_BLOCK.search(card):
        return card[: block.start(2)] + front + card[block.end(2) :]
    return f"---\n{front}\n---\n\n{card}"
