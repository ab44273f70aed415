"""Values to text and JSON."""
