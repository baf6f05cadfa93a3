"""Utilities for all packages: files, configuration, logging and W&B."""
