"""Long trials of a running service: `make chaos` (random faults under load) and `make soak` (many requests)."""
