"""Implementations of the scripts."""
