"""Puts a PEFT adapter (LoRA and its kin) into its base model, so that it is served as an ordinary model."""
