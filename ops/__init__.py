"""The commands of `segrelay`, the console, the embedded Redis, and the files that deploy them."""
