"""Numbers as text, axes, tables and pages: how figures are shown; knows no run."""
