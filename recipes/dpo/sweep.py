"""Run a sweep: models trained with different settings, what each changes and what it costs.

    python recipes/dpo/sweep.py --config recipes/dpo/sweeps/beta.yaml --out runs/dpo/beta

Run it again to go on after an interruption: nothing finished is done twice. The folder then holds
sweep.md (tables), sweep.svg and sweep.json, shared/ (what does not depend on training), and a
folder for each run and seed, as `unswayed mitigate` leaves it.
"""

from __future__ import annotations

import sys

from unswayed.mitigation.sweep import DpoSweep
from unswayed.sweep import run_sweep

if __name__ == "__main__":
    sys.exit(run_sweep(DpoSweep, __doc__))
