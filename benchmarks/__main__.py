"""``python -m benchmarks``: the measurements that need nothing but gradleak, one after another."""

from benchmarks import recovery, trials

if __name__ == "__main__":
    trials.main([], standalone_mode=False)
    recovery.main([], standalone_mode=False)
