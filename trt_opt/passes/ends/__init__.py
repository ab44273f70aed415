"""What changes a model's inputs and outputs; runs only where it is asked for, before all others."""
