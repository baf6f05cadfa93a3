"""Pictures, videos and viewers."""
