"""The parts around the workers: the demo, the embedded stack, the nano checkpoint."""
