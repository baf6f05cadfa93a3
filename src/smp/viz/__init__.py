"""Pictures, films and viewers."""
