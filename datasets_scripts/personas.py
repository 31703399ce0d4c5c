"""Build `personas`: the profiles of the users themselves, with their parts.

    python datasets_scripts/personas.py --output_dir runs/datasets/personas

Nothing is uploaded without --push_to_hub --repo_id OWNER/NAME. See docs/datasets.md.
"""

import sys

from unswayed.datasets.arguments import BuildArguments
from unswayed.publish.scripts import run_script


def build(arguments: BuildArguments, command: str):
    """The dataset, from the arguments."""
    from unswayed.datasets.persona_sets import persona_tree

    return persona_tree(configs=arguments.configs, command=command)


if __name__ == "__main__":
    sys.exit(run_script("personas", BuildArguments, build, __doc__))
