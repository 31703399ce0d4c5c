"""Statistics on plain arrays and frames; nothing here knows a run directory.

crossed     means over items x users, both as clusters: intervals, tests, equivalence
power       what a study of so many items and users finds
trainings   a figure over several trainings: items, users and seeds
clustered   a proportion whose answers come in clusters, such as questions on one conversation
max_t       many contrasts at once by flips of whole items; contrasts of a grid's cells
classic     McNemar's test, Cochran's Q, corrections for many tests
mixed       linear mixed and logistic models of the demographic grid
hotelling   joint tests of contrasts over items
agreement   how alike the answers of several models are
"""
