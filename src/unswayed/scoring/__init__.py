"""From conversations to log-probabilities and texts, on a loaded lm-eval model."""
