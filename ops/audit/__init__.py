"""The command `segrelay audit`: the record of operators' acts, such as pauses and replays."""
