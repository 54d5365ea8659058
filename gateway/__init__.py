"""The HTTP process: routes, answer policy, Triton client. Imports neither torch nor vLLM nor transformers."""
