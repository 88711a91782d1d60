"""Many trials per transaction: as good as one by one, and all of them or none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.studies import complete, config_of, open_study, optuna_study, start, url_of
from optuna.trial import TrialState
from sqlalchemy.dialects import mysql

from ztp_search.errors import StudyError
from ztp_search.study import NewTrial, StoredTrial, StudyDriver, StudyReader, Update
from ztp_search.study.rows import IN_ONE_QUERY

RUNGS = (100, 200, 400)


def test_trials_come_back_as_they_were_stored(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1, 2, 3, tokens=[197, 99], images=0)
        study.update([
            Update(2, "running", 0.7, {"images": 250, "correct": "f"}, 250),
            Update(1, "running", 0.25, {"images": 100}, 100),
        ])  # fmt: skip
        study.update([
            Update(2, "complete", 0.75, {"images": 500, "correct": "f0"}, 500),
            Update(1, "pruned", 0.5, {"images": 200}, 200),
            Update(3, "failed", None, {"failure": "out of memory at batch size 1"}),
        ])  # fmt: skip
        study.set_attribute("holdout", {"images": 100})
        study.set_attribute("holdout", {"images": 200})
    begun = {"tokens": [197, 99], "images": 0}
    with StudyReader.open(url_of(tmp_path), "s") as study:
        assert study.trials() == [
            StoredTrial(0, "running", None, config_of(0), begun, {}),
            StoredTrial(1, "pruned", 0.5, config_of(1), {**begun, "images": 200},
                        {100: 0.25, 200: 0.5}),
            StoredTrial(2, "complete", 0.75, config_of(2),
                        {**begun, "images": 500, "correct": "f0"}, {250: 0.7, 500: 0.75}),
            StoredTrial(3, "failed", None, config_of(3),
                        {**begun, "failure": "out of memory at batch size 1"}, {}),
        ]  # fmt: skip
        assert study.attributes() == {"holdout": {"images": 200}}
        assert study.contract["geometry"] == {"depth": 12, "heads": 6}


def history(number: int) -> list[Update]:
    """Every third trial is stopped at the second rung, every fifth fails at the third."""
    first = Update(number, "running", number % 7 / 10, {"images": 100, "correct": "a"}, 100)
    if number % 3 == 0:
        second = Update(number, "running", number % 11 / 20, {"images": 200}, 200)
        return [first, second, Update(number, "pruned", number % 11 / 20, {}, None)]
    second = Update(number, "running", number % 11 / 20, {"images": 200, "number": number}, 200)
    if number % 5 == 0:
        return [first, second, Update(number, "failed", None, {"failure": f"no {number}"}, None)]
    return [first, second, Update(number, "complete", number % 13 / 20, {"images": 400}, 400)]


def run_histories(study: StudyDriver, trials: int, batch: int) -> None:
    for begin in range(0, trials, batch):
        start(study, *range(begin, min(begin + batch, trials)), images=0)
    for step in range(3):
        for begin in range(0, trials, batch):
            part = range(begin, min(begin + batch, trials))
            study.update([history(number)[step] for number in part])


def expected(number: int) -> StoredTrial:
    """What the history of a trial comes to, told apart from the code that stores it."""
    rungs = {100: number % 7 / 10, 200: number % 11 / 20}
    if number % 3 == 0:
        attrs = {"images": 200, "correct": "a"}
        return StoredTrial(number, "pruned", rungs[200], config_of(number), attrs, rungs)
    attrs = {"images": 200, "correct": "a", "number": number}
    if number % 5 == 0:
        attrs["failure"] = f"no {number}"
        return StoredTrial(number, "failed", None, config_of(number), attrs, rungs)
    attrs["images"] = 400
    value = rungs[400] = number % 13 / 20
    return StoredTrial(number, "complete", value, config_of(number), attrs, rungs)


@contextmanager
def statements_of(study: StudyDriver) -> Iterator[list[tuple[str, int]]]:
    """Statements sent to the database, and the parameters that each one binds at once."""
    sent: list[tuple[str, int]] = []

    def note(_1: object, _2: object, text: str, values: Sequence[object], *_3: object) -> None:
        many = bool(values) and isinstance(values, list)  # one row of values after the other
        sent.append((text, len(values[0]) if many else len(values)))  # type: ignore[arg-type]

    engine = study._database.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_the_size_of_batches_changes_nothing(tmp_path: Path, batch: int) -> None:
    with open_study(url_of(tmp_path)) as study:
        run_histories(study, 60, batch)
        assert study.trials() == [expected(number) for number in range(60)]
    with optuna_study(url_of(tmp_path)) as stored:
        for trial in stored.get_trials():
            want = expected(trial.number)
            assert (trial.value, trial.intermediate_values) == (want.value, want.rungs)
            assert trial.user_attrs == {**want.attrs, "config": config_of(trial.number).to_dict()}
            assert trial.state == {
                "pruned": TrialState.PRUNED, "failed": TrialState.FAIL,
                "complete": TrialState.COMPLETE,
            }[want.state]  # fmt: skip


def test_a_batch_is_one_transaction_whatever_its_size(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        commits: list[object] = []
        sa.event.listen(study._database.engine, "commit", commits.append)
        start(study, *range(60), a=1, b=2)
        assert len(commits) == 1
        for step in range(3):
            study.update([history(number)[step] for number in range(60)])
            assert len(commits) == 2 + step
        study.start([])
        study.update([])
        assert len(commits) == 4


def test_a_batch_takes_no_more_statements_than_a_trial(tmp_path: Path) -> None:
    counts = []
    with open_study(url_of(tmp_path)) as study:
        for first, count in ((0, 1), (1, 60)):
            numbers = range(first, first + count)
            with statements_of(study) as sent:
                start(study, *numbers, images=0)
                for images, state in ((100, "running"), (200, "complete")):
                    study.update(
                        [Update(n, state, 0.5, {"images": images}, images) for n in numbers]
                    )
            counts.append(len(sent))
    assert counts[0] == counts[1] <= 25


def test_a_batch_may_be_larger_than_one_query_takes(tmp_path: Path) -> None:
    many = 2 * IN_ONE_QUERY + 50
    config = config_of(0)
    with open_study(url_of(tmp_path)) as study, statements_of(study) as sent:
        study.start([NewTrial(number, config, {"images": 0}) for number in range(many)])
        for images, state in ((100, "running"), (200, "running"), (300, "complete")):
            study.update(
                [Update(n, state, n / many, {"images": images}, images) for n in range(many)]
            )
        assert max(bound for _, bound in sent) <= 999  # what SQLite took before version 3.32
        trials = study.trials()
    assert trials == [
        StoredTrial(n, "complete", n / many, config, {"images": 300},
                    {100: n / many, 200: n / many, 300: n / many})
        for n in range(many)
    ]  # fmt: skip


def test_a_running_trial_shows_its_learning_curve(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, images=0)
        for images, value in zip(RUNGS, (0.25, 0.5, 0.375), strict=True):
            study.update([Update(0, "running", value, {"images": images}, images)])
            with optuna_study(url_of(tmp_path)) as stored:
                (trial,) = stored.get_trials()
            assert (trial.state, trial.value) == (TrialState.RUNNING, None)
            assert trial.last_step == images and trial.intermediate_values[images] == value
            assert trial.user_attrs["images"] == images
            assert trial.datetime_complete is None
        assert study.trials()[0].rungs == {100: 0.25, 200: 0.5, 400: 0.375}


def test_what_is_written_again_replaces_what_stood_there(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1, a=1, b=2)
        study.update([
            Update(0, "running", 0.25, {"b": 3, "c": 4}, 100),
            Update(1, "running", 0.75, {"a": 9}, 100),
        ])  # fmt: skip
        study.update([Update(0, "running", 0.5, {"c": None}, 100)])
        assert [(trial.attrs, trial.rungs) for trial in study.trials()] == [
            ({"a": 1, "b": 3, "c": None}, {100: 0.5}), ({"a": 9, "b": 2}, {100: 0.75}),
        ]  # fmt: skip
    with sa.create_engine(url_of(tmp_path)).connect() as connection:
        for table, count in (("trial_intermediate_values", 2), ("trial_user_attributes", 7)):
            query = sa.text(f"SELECT count(*) FROM {table}")
            assert connection.scalar(query) == count  # of the two configs as well
        connection.engine.dispose()


def test_one_update_that_cannot_be_stored_leaves_all_as_they_were(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, *range(4), images=0)
        study.update([Update(1, "running", 0.25, {"images": 100}, 100)])
        before = study.trials()
        with pytest.raises(ValueError, match="JSON"):
            study.update([
                Update(1, "running", 0.5, {"images": 200}, 200),
                Update(2, "complete", 0.75, {"images": 400}, 400),
                Update(3, "failed", None, {"failure": float("nan")}),
            ])  # fmt: skip
        assert study.trials() == before
        complete(study, 2, 0.5)  # they can still be updated
        assert study.trials()[2].value == 0.5


def test_one_trial_that_cannot_be_started_leaves_none(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        with pytest.raises(ValueError, match="JSON"):
            study.start([
                NewTrial(0, config_of(0), {}), NewTrial(1, config_of(1), {"x": float("nan")}),
            ])  # fmt: skip
        assert study.trials() == []
        start(study, 0, 1)
        assert [trial.number for trial in study.trials()] == [0, 1]


def test_a_trial_that_another_program_finished_stays_as_it_is(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, *range(4))
        with optuna_study(url_of(tmp_path)) as stored:
            stored.tell(2, 0.1)
        before = study.trials()
        for state in ("running", "complete"):
            updates = [Update(n, state, 0.9, {"images": 500}, 100) for n in (0, 3, 2, 1)]
            with pytest.raises(StudyError, match="another program has finished trial 2 of"):
                study.update(updates)
            assert study.trials() == before
    assert before[2] == StoredTrial(2, "complete", 0.1, config_of(2), {}, {})


def test_a_trial_that_another_program_added_first_is_not_ours(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0)
        with optuna_study(url_of(tmp_path)) as stored:
            stored.enqueue_trial({"v_min": 0.1})
            with pytest.raises(StudyError, match="another program has added 1 trials to 's'"):
                start(study, 1, 2)
            assert [trial.number for trial in stored.get_trials()] == [0, 1]
            assert stored.get_trials()[1].user_attrs == {}


def test_no_statement_is_one_databases_own(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        compiled: list[str] = []

        def note(_1: object, clause: sa.ClauseElement, *_2: object) -> None:
            if not isinstance(clause, sa.TextClause):
                compiled.append(str(clause.compile(dialect=mysql.dialect())).upper())

        sa.event.listen(study._database.engine, "before_execute", note)
        run_histories(study, 3, 3)
        study.trials()
        study.best(1)
    kinds = {text.split()[0] for text in compiled}
    assert kinds == {"INSERT", "UPDATE", "SELECT", "DELETE"}
    assert not [text for text in compiled if "RETURNING" in text or "CONFLICT" in text]
