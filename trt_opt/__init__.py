"""Turns ONNX models into FP16 and INT8 TensorRT engines that can be trusted."""

__version__ = "0.1.0"
