"""What quantisation does to each layer of a model, measured on data without a GPU."""
