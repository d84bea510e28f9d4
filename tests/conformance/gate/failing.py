"""What makes the gate close."""

from segrelay.worker.core.verdicts import AccessRefused, Failed

FAILED = Failed("503")
REFUSED = AccessRefused("Access Denied")


def break_it(bench, *triggers):
    for number in range(5):
        bench.send(FAILED, trigger=triggers[number % len(triggers)], batch=f"batch-{number}")
