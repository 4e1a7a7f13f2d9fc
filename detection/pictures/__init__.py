"""Draw annotated and detected objects on HTML pages."""
