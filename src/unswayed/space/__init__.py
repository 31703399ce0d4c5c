"""What the Space spaces/memory_flips shows and does; its app.py only draws.

prefixes   a scoring model that keeps encoded prefixes from one call to the next
models     which models may be asked, and those in memory
flips      one item under no memory and under two: probabilities, answers, flips, in words
examples   true flips of a stored run, for "surprise me"
links      the chosen state to a query string and back
uploads    items and personas of a visitor: limits, a small audit in a folder of its own
tables     stored results as tables with intervals
pages      pieces of HTML; whatever visitors or models write is escaped here
"""
