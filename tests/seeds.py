"""Where the random numbers of tests begin.

`make test` always tries the same cases, so that a red run is the fault of the change under test; new cases
are looked for by `REALMFS_SEED=random make test` and by `make soak`. Every randomised test prints its seed,
and `REALMFS_SEED=N` repeats it.
"""

import os
import random

LARGEST = 1 << 31
WANTED = os.environ.get("REALMFS_SEED", "1")
SEARCHING = WANTED == "random"


def first_seed() -> int:
    """Return the seed of a test's first case: 1, what `REALMFS_SEED` says, or a new one for "random"."""
    seed = random.SystemRandom().randrange(LARGEST) if SEARCHING else int(WANTED)
    print(f"REALMFS_SEED={seed}")
    return seed
