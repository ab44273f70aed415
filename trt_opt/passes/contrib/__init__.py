"""ONNX Runtime's own operators, and those that ONNX has withdrawn, in standard ones."""
