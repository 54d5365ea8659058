"""Commands for those who tune, try and publish models. Each talks HTTP to the service or works on model folders.

python -m tools.evaluate    plays the course's evaluator: score, speed, latency, pass or fail
python -m tools.tune        searches settings for the highest speed at a score that passes
python -m tools.merge       puts a PEFT adapter into its base model
python -m tools.quantize    makes a model smaller: AWQ, GPTQ, FP8
python -m tools.upload      publishes a model folder on ModelScope

Exit status of all: 0 done and passed, 1 done and not passed or broken off, 2 called wrongly.
"""
