"""Run a sweep: memories trained with different settings, and what each remembers.

    python recipes/plum/sweep.py --config recipes/plum/sweeps/lambda.yaml --out runs/plum/lambda

Run it again to go on after an interruption: nothing finished is done twice. The folder then holds
sweep.md (tables), sweep.svg and sweep.json, and a folder for each run and seed.
"""

from __future__ import annotations

import sys

from unswayed.plum.sweep import PlumSweep
from unswayed.sweep import run_sweep

if __name__ == "__main__":
    sys.exit(run_sweep(PlumSweep, __doc__))
