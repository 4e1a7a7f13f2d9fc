"""Evaluate frozen features: kNN, linear probes and other protocols, records and reports."""
