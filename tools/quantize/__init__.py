"""Makes a model smaller for vLLM, by llm-compressor: 4-bit weights by AWQ or GPTQ, or 8-bit floats."""
