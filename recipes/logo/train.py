"""Train a global memory of a population into one LoRA module (LoGo, after arXiv 2509.23767).

    accelerate launch --config_file configs/accelerate/cpu.yaml recipes/logo/train.py \
        --config recipes/logo/smollm2-135m.yaml

One YAML is one run. Run it again to go on after an interruption. See recipes/logo/README.md.
"""

from __future__ import annotations

import sys

from unswayed.logo.globals import run_recipe

if __name__ == "__main__":
    sys.exit(run_recipe(__doc__))
