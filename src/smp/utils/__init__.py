"""Files, configuration, logging and W&B: what every room uses."""
