"""How figures are shown; knows no run.

numbers  numbers and foreign words as text
plots    where things stand on axes, how dark cells are, SVG
tables   Markdown tables
page     Markdown and pages from view data and templates
"""
