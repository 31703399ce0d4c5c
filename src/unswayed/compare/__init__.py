"""Runs side by side: models, memories, settings; and what two runs are paired by."""
