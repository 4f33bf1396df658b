"""Importing published weights: files, names, and initialisation from trained networks."""
