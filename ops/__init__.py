"""The commands of `segrelay`, the sandbox, the embedded Redis, and the developers' tools."""
