"""Transfer to many data sets: plan, table and summary."""
