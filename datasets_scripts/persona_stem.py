"""Build `persona_stem`: management items, each asked under every user.

    python datasets_scripts/persona_stem.py --output_dir runs/datasets/persona_stem

The built-in bank is the default; your own copy of the STEM comes with --items stem=FILE. Nothing is
uploaded without --push_to_hub --repo_id OWNER/NAME. See docs/datasets.md.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from unswayed.publish.scripts import ItemArguments, run_script

if TYPE_CHECKING:
    from unswayed.datasets.trees import Tree

NAME, KIND = "persona_stem", "management"


def build(arguments: ItemArguments, command: str) -> Tree:
    """The dataset, from the arguments."""
    from unswayed.datasets.persona_sets import item_tree

    return item_tree(
        KIND,
        items=arguments.items or KIND,
        decisions=arguments.decisions,
        configs=arguments.configs,
        scoring=arguments.scoring,
        seed=arguments.seed,
        license_statement=arguments.license_statement,
        command=command,
    )


if __name__ == "__main__":
    sys.exit(run_script(NAME, ItemArguments, build, __doc__))
