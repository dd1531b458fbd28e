"""What one run is: frozen, complete, checked at birth, written as JSON and named by its content.

A `RunConfig` is the only thing that goes into a training run. `run_id` hashes the fields that differ from their
defaults, so a new setting whose default keeps the old behaviour leaves every old result valid. Name, tags and mesh are
not part of it: they do not change what is learned.
"""

from lmscale.core.config.checks import (
    LARGEST_INTEGER,
    Parts,
    check,
    check_types,
    content,
    field_from_json,
    finite,
    from_json,
    not_negative,
)
from lmscale.core.config.data import IMPORTED, TOKENS, DataConfig
from lmscale.core.config.exam import ExamConfig
from lmscale.core.config.lora import LoraConfig
from lmscale.core.config.mesh import MeshConfig
from lmscale.core.config.model import ModelConfig, RopeScaling
from lmscale.core.config.objective import (
    Completion,
    Distillation,
    NextToken,
    ObjectiveConfig,
    Preference,
    Reinforcement,
    RewardModel,
)
from lmscale.core.config.optimizer import OptimizerConfig
from lmscale.core.config.parents import READ_ROLES, check_read, check_start
from lmscale.core.config.router import RouterConfig
from lmscale.core.config.run import (
    DISTIL,
    FINE_TUNE,
    PREFER,
    PRETRAIN,
    REINFORCE,
    REWARD,
    RUN_ID_LENGTH,
    RunConfig,
    loss_unit,
)
from lmscale.core.config.start import CheckpointName

__all__ = [
    "DISTIL",
    "FINE_TUNE",
    "IMPORTED",
    "LARGEST_INTEGER",
    "PREFER",
    "PRETRAIN",
    "READ_ROLES",
    "REINFORCE",
    "REWARD",
    "RUN_ID_LENGTH",
    "TOKENS",
    "CheckpointName",
    "Completion",
    "DataConfig",
    "Distillation",
    "ExamConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelConfig",
    "NextToken",
    "ObjectiveConfig",
    "OptimizerConfig",
    "Parts",
    "Preference",
    "Reinforcement",
    "RewardModel",
    "RopeScaling",
    "RouterConfig",
    "RunConfig",
    "check",
    "check_read",
    "check_start",
    "check_types",
    "content",
    "field_from_json",
    "finite",
    "from_json",
    "loss_unit",
    "not_negative",
]
