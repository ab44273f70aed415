"""ONNX models in and out: loading, saving, checking, asking and editing; onnx-graphsurgeon lives here."""
