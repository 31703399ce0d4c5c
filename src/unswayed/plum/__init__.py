"""PLUM: a model that remembers conversations in its weights (arXiv 2411.13405)."""
