"""The adapters for Redis: partitions, gates, numbers, and the scripts behind them."""
