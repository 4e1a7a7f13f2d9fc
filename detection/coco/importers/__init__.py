"""Import other tools' annotations: one module per format, all read into the same few types."""
