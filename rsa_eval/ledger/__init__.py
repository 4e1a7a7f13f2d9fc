"""The ledger: every row of the paper and of the study, with what was measured and how."""
