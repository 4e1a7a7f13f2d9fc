"""Faults from outside that a run must survive or refuse."""
