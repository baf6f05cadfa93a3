"""How well a policy does its task."""
