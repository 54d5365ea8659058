"""Python's garbage collector kept from the objects that stay for good.

With the libraries of a model loaded there are hundreds of thousands of them. A batch of some thousand prompts makes
enough new ones for the collector to look through all of them, on the thread that everything waits for.
"""

from __future__ import annotations

import gc

# Net new objects before the youngest are looked through, and how many such rounds before older ones are.
_THRESHOLDS = (10_000, 20, 100)


def spare_long_lived() -> None:
    """Leave alone what has been made by now, and look at the rest less often. For the end of a start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
