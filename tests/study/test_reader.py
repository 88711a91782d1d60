"""Reading a study: what is found, what is left out, and that nothing is created."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from helpers.driving import values_as_another_user
from helpers.studies import PROCESSES, complete, open_study, optuna_study, start, url_of

from ztp_search.errors import StudyError
from ztp_search.racing import lot
from ztp_search.study import StudyReader, Update, existing
from ztp_search.study.dashboard_storage import DashboardStorage


def test_best_is_by_value_then_gflops_then_by_lot(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        stored = [(0.5, 3.0), (0.7, 3.0), (0.7, 2.0), (0.7, 2.0), (0.6, 1.0), (0.9, 1.0), (0.9, 1)]
        for number, (value, gflops) in enumerate(stored):
            start(study, number, gflops={"total": gflops})
            if number < 5:
                complete(study, number, value)
        study.update([Update(5, "pruned", 0.9, {}), Update(6, "running", 0.9, {}, 100)])
        equal = sorted([2, 3], key=lot)
        assert [trial.number for trial in study.best(4)] == [*equal, 1, 4]
        assert [trial.number for trial in study.best(99)] == [*equal, 1, 4, 0]
        assert study.best(1) == [study.trials()[equal[0]]]
        assert study.best(0) == []


def test_best_is_by_score_where_the_driver_has_stored_any(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        losses = [0.1, 0.1, 0.3, 0.2, 0.1]
        for number, (value, loss) in enumerate(zip((0.9, 0.5, 0.7, 0.7, 0.8), losses, strict=True)):
            start(study, number)
            study.update([Update(number, "complete", value, {"loss": loss})])
        study.set_attribute("scores", {"0": -0.02, "1": 0.01, "2": 0.0, "3": 0.0})
        # of equal scores the least loss; trial 4 became complete behind the last scores
        assert [trial.number for trial in study.best(9)] == [1, 3, 2, 0, 4]
        assert [trial.number for trial in study.best(2)] == [1, 3]


def test_best_leaves_out_trials_of_another_program(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1, 2)
        for number, value in enumerate((0.5, 0.6, 0.0)):
            complete(study, number, value)
        with optuna_study(url_of(tmp_path)) as stored:
            stored.add_trial(optuna.trial.create_trial(value=0.9))
        assert [trial.number for trial in study.best(1)] == [1]
        assert [trial.number for trial in study.best(9)] == [1, 0, 2]
    assert "1 trials that another program added are left out, first trial 3" in caplog.text


def test_a_reader_sees_no_update_by_half(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study, StudyReader.open(url_of(tmp_path), "s") as reader:
        start(study, 0, images=0)
        before = study.trials()
        statements: list[str] = []

        def update_behind_the_first(_1: object, _2: object, statement: str, *_3: object) -> None:
            statements.append(statement)
            if len([each for each in statements if each.startswith("SELECT")]) == 1:
                study.update([Update(0, "complete", 0.5, {"images": 100}, 100)])

        sa.event.listen(reader._database.engine, "after_cursor_execute", update_behind_the_first)
        assert reader.trials() == before
        assert len(statements) > 2 and study.trials() != before


def test_load_without_a_name_takes_the_study_driven_last(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        open_study(url_of(tmp_path), name).close()
    assert optuna.get_all_study_names(url_of(tmp_path)) == ["one", "two"]
    with StudyReader.open(url_of(tmp_path), None) as study:
        assert study.name == "one"
    with pytest.raises(StudyError, match="but got 'three'; there is one, two$"):
        StudyReader.open(url_of(tmp_path), "three")


def test_the_study_driven_last_is_so_whatever_the_clock_was_set_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moved(datetime):
        """A clock that shows another time."""

        by = timedelta()

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + cls.by

    monkeypatch.setattr("ztp_search.study.driver.datetime", Moved)
    hours = {"a day ahead": 24, "right again": 0, "an hour behind": -1, "a week behind": -168}
    for name, each in hours.items():
        Moved.by = timedelta(hours=each)
        open_study(url_of(tmp_path), name).close()
        with StudyReader.open(url_of(tmp_path)) as study:
            assert study.name == name


def test_load_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="study.db does not exist; run a search first"):
        StudyReader.open(url_of(tmp_path), None)
    assert list(tmp_path.iterdir()) == []
    optuna.create_study(storage=url_of(tmp_path), study_name="not ours")
    with pytest.raises(StudyError, match="holds no study yet"):
        StudyReader.open(url_of(tmp_path), None)


def test_a_file_without_tables_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.touch()  # a search is on its way up
    with pytest.raises(StudyError, match="holds no study yet"):
        StudyReader.open(url_of(tmp_path))
    with pytest.raises(StudyError, match="holds no study yet"):
        DashboardStorage(url_of(tmp_path), lambda study, number: {})
    with existing(url_of(tmp_path), "s") as study:
        assert study is None
    assert list(tmp_path.iterdir()) == [path] and path.stat().st_size == 0


def test_existing_is_the_study_or_none(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    with existing(url, "s") as study:
        assert study is None
    assert list(tmp_path.iterdir()) == []
    with open_study(url) as driver:
        start(driver, 0, 1)
        complete(driver, 0, 0.5)
    with existing(url, "another") as study:
        assert study is None
    with existing(url, "s") as study:
        assert study is not None and study.finished() == 1 and study.name == "s"


def test_readers_do_not_disturb_a_driver_on_its_way_up(tmp_path: Path) -> None:
    for number in range(5):
        url = f"sqlite:///{tmp_path}/{number}.db"
        with ThreadPoolExecutor() as pool:
            driver = pool.submit(open_study, url)
            while not driver.done():
                with existing(url, "s") as study:
                    assert study is None or study.trials() == []
            driver.result().close()


def test_what_is_closed_is_not_used(tmp_path: Path) -> None:
    study = open_study(url_of(tmp_path))
    study.close()
    with pytest.raises(ValueError, match="study.db was closed"):
        study.trials()
    with pytest.raises(ValueError, match="study.db was closed"):
        start(study, 0)
    with pytest.raises(ValueError, match="study.db was closed"):
        study.set_attribute("holdout", {})
    study.close()


def test_reading_takes_no_lock(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0)
    for lock in tmp_path.glob("*.lock"):
        lock.unlink()
    (tmp_path / "study.db.lock").mkdir()  # nobody can
    with StudyReader.open(url_of(tmp_path)) as reader:
        assert len(reader.trials()) == 1
    with pytest.raises(StudyError, match=r"cannot be used: .*study\.db\.lock"):
        open_study(url_of(tmp_path))


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that another user can reach; one of pytest's cannot be."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
@pytest.mark.parametrize("driven", [False, True])
def test_a_study_in_a_folder_that_cannot_be_written_is_read(
    open_to_all: Path, tmp_path: Path, driven: bool
) -> None:
    open_study(url_of(tmp_path)).close()
    url = f"sqlite:///{open_to_all}/a study#1.db"
    with ExitStack() as held:
        study = held.enter_context(open_study(url))
        start(study, 0, 1)
        complete(study, 0, 0.5)
        if not driven:
            study.close()
        open_to_all.chmod(0o555)
        held.callback(open_to_all.chmod, 0o755)
        before = sorted(open_to_all.iterdir())
        with ProcessPoolExecutor(1, PROCESSES) as pool:
            values = pool.submit(values_as_another_user, url, url_of(tmp_path)).result()
        assert values == [0.5, None]
        assert sorted(open_to_all.iterdir()) == before


def test_a_study_is_read_where_there_is_no_fcntl(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0)
    program = (
        "import sys, warnings; sys.modules['fcntl'] = None; warnings.simplefilter('ignore')\n"
        "from ztp_search.study import StudyReader\n"
        f"with StudyReader.open({url_of(tmp_path)!r}) as study: print(len(study.trials()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_siblings_are_the_studies_of_the_same_search_under_other_budgets(tmp_path: Path) -> None:
    for name, changes in {
        "a": {"budget": {"macs": 1}}, "b": {"budget": {"macs": 2}}, "c": {"seed": 1},
        "d": {"budget": {"macs": 3}}, "f": {"budget": {"macs": 2}},
        "e": {"budget": {"macs": 1}, "images": 7},
    }.items():  # fmt: skip
        open_study(url_of(tmp_path), name, **changes).close()
    with StudyReader.open(url_of(tmp_path), "b") as study:
        assert [each.name for each in study.siblings()] == ["a", "d"]
        assert [each.contract["budget"]["macs"] for each in study.siblings()] == [1, 3]
    with StudyReader.open(url_of(tmp_path), "e") as study:
        assert study.siblings() == []
