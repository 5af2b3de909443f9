"""Training: a configuration, data, a task, and one loop that runs them."""
