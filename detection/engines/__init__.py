"""One module per detection library; each is the only one that imports its library's detectors."""
