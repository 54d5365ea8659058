"""The answer policy of ``/predict``: question → messages and sampling parameters; text → answer. Pure functions."""
