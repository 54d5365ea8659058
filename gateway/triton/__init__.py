"""The way to Triton: wire format, one stream a request, readiness, retries."""
