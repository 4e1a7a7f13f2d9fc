"""What frozen features are worth: kNN, linear probe, records and reports."""
