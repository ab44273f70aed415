"""What any model is rid of, whatever its target."""
