"""What a layer of experts adds to the residual stream, and what it reports.

Letters as in `experts`.
"""

import jax

from lmscale.core.config import ModelConfig
from lmscale.lm.model.experts.capacity import Occupancy, with_capacity
from lmscale.lm.model.experts.dropless import dropless
from lmscale.lm.model.experts.parallel import divides, experts_on_each_device
from lmscale.lm.model.experts.routing import reports, route
from lmscale.lm.model.layers import mlp
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import NO_TAP, BoundTap


def expert_mlp(
    layer_params: Params,
    x_BTD: jax.Array,
    config: ModelConfig,
    tap: BoundTap = NO_TAP,
    occupancy: Occupancy = Occupancy(),  # noqa: B008
) -> tuple[jax.Array, Params]:
    """Sum of the experts that a token takes, each times its gate, and of the shared experts (Dai 2024, eq. 9)."""
    routing, has_room_BTJ = route(layer_params, x_BTD, config, tap), None
    choice = routing.experts_BTJ, routing.gates_BTJ
    batch, time, _ = x_BTD.shape
    cut = divides(batch, time, config.experts) and not tap.taps("expert_hidden")
    if config.expert_capacity is None and cut:
        y_BTD = experts_on_each_device(layer_params, x_BTD, *choice, config)
    elif config.expert_capacity is None:
        y_BTD = dropless(layer_params, x_BTD, *choice, config, tap)
    else:
        y_BTD, has_room_BTJ = with_capacity(layer_params, x_BTD, *choice, config, occupancy, tap)
    if config.shared_experts:
        y_BTD = y_BTD + mlp(layer_params, x_BTD, config, tap, "shared")
    remembered = {} if occupancy.occupied_BE is None else {"experts_BTJ": routing.experts_BTJ}
    return y_BTD, reports(routing, has_room_BTJ, occupancy, config) | remembered
