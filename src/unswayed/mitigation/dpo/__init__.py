"""Training the effect of memory away: DPO on pairs whose better answer keeps the memory out."""
