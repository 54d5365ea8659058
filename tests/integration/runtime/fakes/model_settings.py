"""Model settings that are always good, unless FAKE_BAD_MODEL_SETTING is set."""

import os
import sys

if os.environ.get("FAKE_BAD_MODEL_SETTING"):
    sys.exit("DTYPE=float3: auto, bfloat16, float16 or float32")
