"""Attention, recurrent and normalisation layers, and whatever ONNX defines by simpler operators."""
