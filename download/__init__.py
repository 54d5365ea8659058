"""The parts of ``download_model.py``: the hubs, the state of a folder, and what the operator is told."""
