"""What Qwen3Guard-Gen is: its prompt, its labels, and one forward pass for a verdict."""
