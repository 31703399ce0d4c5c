"""Time and memory of a piece of work, for the benchmarks beside it; on Linux."""

from __future__ import annotations

import ctypes
import gc
import time
from pathlib import Path

import torch


def clock() -> float:
    """Seconds, of which differences count: by the wall with a GPU, else of this process's threads
    together, so that what else a machine is busy with does not count."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def restart_peak() -> None:
    """From here on `peak_gb` counts."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
        Path("/proc/self/clear_refs").write_text("5")  # what is resident now is the most so far


def peak_gb() -> float:
    """The most memory since `restart_peak` (GB): on the GPU, else what the process had resident."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line[:6] == "VmHWM:") * 1024e-9, 2)
