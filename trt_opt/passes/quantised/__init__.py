"""Quantised operators computed exactly, where TensorRT has no Q/DQ form of them."""
