"""`unswayed traces`: does generated reasoning use the memory, and more so when it is wrong?

detector    words of the memory in a text, negation aware
analysis    the traces of a run, shares, odds ratios
judge       a language model as a second reader, and its agreement with the detector
"""
