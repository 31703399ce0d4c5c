"""Runs side by side; what differs between them decides how they are compared.

runs      whether runs asked the same, what they are called
models    how alike several models answer: agreement.json
memories  one model under several memories: compare.json
settings  evaluations of LoGo with other settings: comparison.json
paired    what two runs of the same items and users are compared by, value by value
"""
