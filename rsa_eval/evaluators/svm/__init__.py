"""Fit one linear SVM per class, for images of one class or several."""
