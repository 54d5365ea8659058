"""Variables of one model of several: ``parameters`` in its ``config.pbtxt`` go before the environment's."""

from __future__ import annotations

import json
from collections.abc import MutableMapping


def apply_parameters(model_config: str, environ: MutableMapping[str, str]) -> None:
    """Put the parameters of Triton's ``model_config`` (JSON) into the environment of this model's process.

    A model with a folder of its own has not the id of the first one, so ``MODEL_ID`` goes unless it is given too.
    """
    parameters = json.loads(model_config).get("parameters") or {}
    variables = {name: entry.get("string_value", "") for name, entry in parameters.items()}
    if "MODEL_DIR" in variables and "MODEL_ID" not in variables:
        environ.pop("MODEL_ID", None)
    environ.update(variables)
