"""What an episode is judged by: protocols, what is recorded, and its metrics."""
