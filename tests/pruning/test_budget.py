"""Several budgets in one text: which they are, and what is refused."""

import pytest

from ztp_search.errors import BudgetError
from ztp_search.pruning.budget import check_budgets, split_budgets


@pytest.mark.parametrize(
    ("text", "budgets"),
    [
        ("3.08", ["3.08"]),
        ("2.5,3.0,3.5", ["2.5", "3", "3.5"]),  # in one form, as they name studies
        (" 50% , 67%", ["50%", "67%"]),
        ("3.5,2.5", ["3.5", "2.5"]),
        ("3,3.5,3.0", ["3", "3.5"]),
        ("68%,68.0%,68 %", ["68%"]),
        ("3.0812345,1e-1", ["3.0812345", "0.1"]),
        ("2.5:4.0:6", ["2.5", "2.8", "3.1", "3.4", "3.7", "4"]),
        ("50%:80%:4", ["50%", "60%", "70%", "80%"]),
        ("1:2:4", ["1", "1.33333", "1.66667", "2"]),
        ("4:2.5:2", ["4", "2.5"]),
        ("1,2:3:2,67%", ["1", "2", "3", "67%"]),
    ],
)
def test_a_list_or_range_of_budgets(text: str, budgets: list[str]) -> None:
    assert split_budgets(text) == tuple(budgets)
    check_budgets(text)


@pytest.mark.parametrize(
    "text",
    ["2.5:4.0", "2.5:4.0:1", "2.5:4.0:0", "2.5:4.0:-2", "2.5:4.0:2.5", "2.5:80%:3", ":4:3",
     "2.5:4.0:99999", "a:b:3", "1:2:3:4"],
)  # fmt: skip
def test_what_is_no_range_is_refused_with_the_form_there_is(text: str) -> None:
    with pytest.raises(BudgetError) as error:
        split_budgets(text)
    assert "FROM:TO:HOW-MANY" in str(error.value) and repr(text) in str(error.value)


@pytest.mark.parametrize("text", ["2.5,", "2.5,,3", "0,3", "-1:4:3", "0:4:3", "2.5;3"])
def test_one_bad_budget_among_several_is_refused(text: str) -> None:
    with pytest.raises(BudgetError):
        check_budgets(text)


def test_more_than_a_hundred_budgets_are_a_mistake() -> None:
    assert len(split_budgets("1:2:100")) == 100
    with pytest.raises(BudgetError, match="100 at most"):
        split_budgets("1:2:101")
