"""Plays the course's evaluator against a running service."""
