"""Build `persona_steu`: understanding items, each asked under every user.

    python datasets_scripts/persona_steu.py --output_dir runs/datasets/persona_steu

The built-in bank is the default; your own copy of the STEU comes with --items steu=FILE. Nothing is
uploaded without --push_to_hub --repo_id OWNER/NAME. See docs/datasets.md.
"""

import sys
from functools import partial

from unswayed.datasets.arguments import ItemArguments
from unswayed.publish.scripts import build_items, run_script

build = partial(build_items, "understanding")

if __name__ == "__main__":
    sys.exit(run_script("persona_steu", ItemArguments, build, __doc__))
