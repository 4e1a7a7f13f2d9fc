"""Run many training runs and evaluations as one resumable job."""
