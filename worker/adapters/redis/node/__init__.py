"""Reports of a node to Redis, and its surveys of all partitions: the sweep uses them."""
