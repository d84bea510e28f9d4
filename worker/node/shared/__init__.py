"""The state that a node's processes share since before the fork: slots, calls, stops."""
