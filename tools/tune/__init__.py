"""Searches the service's settings for the highest speed at a score that passes."""
