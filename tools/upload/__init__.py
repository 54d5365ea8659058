"""Publishes a model folder on ModelScope."""
