"""``python -m benchmarks``: the measurements that need nothing but gradleak, one after another."""

from benchmarks import closed, recovery, trials

if __name__ == "__main__":
    for measurement in (closed, trials, recovery):
        measurement.main([], standalone_mode=False)
