"""Loops, sequences and optionals, resolved before the engine is built."""
