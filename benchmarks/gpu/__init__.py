"""What a GPU keeps and what it is worth: `python -m benchmarks.gpu`."""
