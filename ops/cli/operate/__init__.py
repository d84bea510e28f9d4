"""The commands of the help's section Operate, but for `status` and `dlq`."""
