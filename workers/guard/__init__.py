"""The guard for Qwen3Guard-Gen checkpoints: their prompts, their labels, and one forward pass for a severity."""
