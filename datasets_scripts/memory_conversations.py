"""Build `memory_conversations`: conversations with facts, and questions on them.

    python datasets_scripts/memory_conversations.py --output_dir runs/datasets/memory_conversations

Nothing is uploaded without --push_to_hub --repo_id OWNER/NAME. See docs/datasets.md.
"""

import sys

from unswayed.datasets.arguments import BuildArguments
from unswayed.publish.scripts import run_script


def build(arguments: BuildArguments, command: str):
    """The dataset, from the arguments."""
    from unswayed.datasets.conversation_sets import conversation_tree

    return conversation_tree(configs=arguments.configs, command=command)


if __name__ == "__main__":
    sys.exit(run_script("memory_conversations", BuildArguments, build, __doc__))
