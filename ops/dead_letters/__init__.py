"""The command `segrelay dlq`: reading, masking, replaying and discarding dead letters."""
