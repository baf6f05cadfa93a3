"""Evaluation episodes: protocols, recorded trajectories, and their metrics."""
