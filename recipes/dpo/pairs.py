"""Build preference pairs to train on; nothing is published.

    python recipes/dpo/pairs.py --config recipes/dpo/pairs/own.yaml

Keys are the options of datasets_scripts/persona_preferences.py that say how pairs are made. Prints
the folder, which is a recipe's `dataset`. Run it again to go on after an interruption.
"""

from __future__ import annotations

import sys

from unswayed.mitigation.preferences.training import run_recipe

if __name__ == "__main__":
    sys.exit(run_recipe(__doc__))
