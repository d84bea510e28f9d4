"""The command `segrelay flower`, and the Flower server that it runs."""
