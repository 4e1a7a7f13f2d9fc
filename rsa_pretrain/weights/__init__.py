"""Read and write files of weights, in our format and in others'."""
