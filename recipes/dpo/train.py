"""Train the effect of memory away with preference pairs (DPO, after arXiv 2510.09905).

    accelerate launch --config_file configs/accelerate/cpu.yaml recipes/dpo/train.py \
        --config recipes/dpo/smollm2-135m.yaml

One YAML is one run. Run it again to go on after an interruption. See recipes/dpo/README.md.
"""

from __future__ import annotations

import sys

from unswayed.mitigation.dpo.recipe import run_recipe

if __name__ == "__main__":
    sys.exit(run_recipe(__doc__))
