"""The command `segrelay template`: write, try, test, check, compare and push templates."""
