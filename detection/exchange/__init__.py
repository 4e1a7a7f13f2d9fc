"""Exchange weights and settings with detectron2, and prove the exchange."""
