"""For programs that run Ray Tune themselves: a searcher and a trainable for a `Tuner` of theirs.

`BudgetSearch` suggests configurations that meet the budget, and `trainable` makes what evaluates
them on a growing number of images, so that a scheduler can stop those that are worse. Nothing else
in ztp_search imports this package, which imports Ray.
"""

from ztp_search.tune.evaluation import Evaluation, trainable
from ztp_search.tune.results import best_result
from ztp_search.tune.searcher import BudgetSearch
from ztp_search.tune.trial_config import config_of

__all__ = ["BudgetSearch", "Evaluation", "best_result", "config_of", "trainable"]
