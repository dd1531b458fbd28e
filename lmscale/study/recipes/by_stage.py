"""One recipe for each stage of a model's life."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lmscale.core.arguments import checked
from lmscale.core.config import PRETRAIN, RunConfig, check
from lmscale.core.errors import UserError, nearest
from lmscale.core.user_code import called
from lmscale.study.sweep import PARENT_FIELDS, Point


@dataclass(frozen=True)
class ByStage:
    """Takes the recipe of the stage that a point states; `pretrain` where it states none."""

    recipes: Mapping[str, Callable[[Point], RunConfig]]

    def __call__(self, point: Point) -> RunConfig:
        """The run at a point, by the recipe of its stage. Raises `UserError` for a stage without one."""
        return called(f"the recipe of the stage {_stage(point)!r}", self._of(point), point)

    def origins(self, point: Point) -> dict[str, str]:
        """Where the values of the run come from, as far as the recipe of its stage says."""
        origins: Any = getattr(self._of(point), "origins", None)
        return dict(origins(point)) if callable(origins) else {}

    def _of(self, point: Point) -> Callable[[Point], RunConfig]:
        stage = _stage(point)
        if stage not in self.recipes:
            parents = ", ".join(role for role in PARENT_FIELDS if role in point)
            raise UserError(
                f"there is no recipe for the stage {stage!r}{f', of a point with {parents}' if parents else ''}"
                f"{nearest(stage, self.recipes)}; give by_stage({stage.replace('-', '_')}=...)"
            )
        return self.recipes[stage]


def _stage(point: Point) -> str:
    return str(point.get("stage", PRETRAIN))


@checked
def by_stage(**recipes: Callable[[Point], RunConfig]) -> ByStage:
    """A recipe for each stage by its name: `by_stage(pretrain=..., fine_tune=..., distil=...)`."""
    check(bool(recipes), "by_stage(): give a recipe for each stage, as in by_stage(pretrain=..., fine_tune=...)")
    for name, recipe in recipes.items():
        check(callable(recipe), f"by_stage({name}=...): a recipe is called with a point, not {type(recipe).__name__}")
    return ByStage({name.replace("_", "-"): recipe for name, recipe in recipes.items()})
