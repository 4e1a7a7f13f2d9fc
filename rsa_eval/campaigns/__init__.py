"""Run many trainings and evaluations as one resumable job."""
