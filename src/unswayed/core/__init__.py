"""What every room leans on: errors, files, progress, recipes, journals; knows nothing of models."""
