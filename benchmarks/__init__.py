"""What the service's speed is measured with, side by side with vLLM itself. Results are in `results/`."""
