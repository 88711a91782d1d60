"""The racing rules as they read, a trial and an image at a time."""

from __future__ import annotations

import numpy as np

from ztp_search.racing import Racing

CHANCES = np.linspace(0.0, 0.5, 4001)[1:]
"""Of the challenger to win a discordant pair, as far as the bets are spread over them."""


def slow_wealth(outcomes: list[bool]) -> float:
    """Image by image: the money on each chance p grows by 2 p on a win, 2 (1 - p) on a loss."""
    money = (CHANCES * (1 - CHANCES)) ** 49  # as Beta(50, 50) spreads it
    money /= money.sum() - money[-1] / 2  # the last chance, 1/2, ends the interval
    for win in outcomes:
        money = money * 2 * (CHANCES if win else 1 - CHANCES)
    return float(money.sum() - money[-1] / 2)


def slow_survivors(
    racing: Racing, cohort: dict[int, list[bool]], complete: dict[int, list[bool]],
    quota: int, finalists: int, rivals: int,
) -> set[int]:  # fmt: skip
    """As the rules read, a trial at a time."""
    images = len(next(iter(cohort.values())))
    everyone = {**{n: r[:images] for n, r in complete.items()}, **cohort}

    def place(number: int) -> tuple[int, int]:
        return -sum(everyone[number]), number

    surviving = set()
    for number, mine in cohort.items():
        rank_in_cohort = sum(place(other) < place(number) for other in cohort)
        rank_in_study = sum(place(other) < place(number) for other in everyone)
        stopped = False
        if racing.halving and rank_in_cohort >= quota and rank_in_study >= finalists:
            stopped = True
        incumbent = everyone[min(everyone, key=place)]
        differ = [a for a, b in zip(mine, incumbent, strict=True) if a != b]
        if racing.evidence and differ.count(False) > differ.count(True):
            stopped = stopped or slow_wealth(differ) >= 10 * max(1, rivals)
        if not stopped:
            surviving.add(number)
    return surviving
