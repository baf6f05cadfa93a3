"""Robots that motion and tasks refer to."""
