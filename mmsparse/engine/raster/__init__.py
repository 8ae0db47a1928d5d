"""Pictures larger than memory, labeled window by window."""
