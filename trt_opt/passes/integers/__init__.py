"""Integer types and operators that TensorRT lacks, in the arithmetic it has."""
