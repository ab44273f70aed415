"""Implicit quantisation, up to TensorRT 10: what TensorRT calibrates with, its own calibrators, and its caches."""
