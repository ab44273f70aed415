"""Pooling, resizing and what else moves pixels."""
