"""Tasks of lm-eval; `utils` is what their YAML calls."""
