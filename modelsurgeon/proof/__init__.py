"""Is the result the same function? By the weights alone, for all inputs."""
