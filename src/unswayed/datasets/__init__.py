"""Datasets for the Hub as local trees: rows, cards, files; nothing is sent."""
