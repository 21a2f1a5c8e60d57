"""The videos API, its queue and its pages, served by one process beside one that runs the models."""
