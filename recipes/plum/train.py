"""Train memories of conversations into LoRA adapters (PLUM, arXiv 2411.13405).

    accelerate launch --config_file configs/accelerate/cpu.yaml recipes/plum/train.py \
        --config recipes/plum/smollm2-135m.yaml

One YAML is one run. Run it again to go on after an interruption. See recipes/plum/README.md.
"""

from __future__ import annotations

import sys

from unswayed.plum.recipe import run_recipe

if __name__ == "__main__":
    sys.exit(run_recipe(__doc__))
