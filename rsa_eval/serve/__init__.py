"""The report as a page that this machine serves, with curves of runs while they train."""
