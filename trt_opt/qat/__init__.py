"""Quantisation-aware training in PyTorch: where quantisers go, and the script that puts them there.

`qat_insert.py` is copied into the user's folder; nothing here imports it, or PyTorch.
"""
