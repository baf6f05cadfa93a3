"""How well a prior knows motion."""
