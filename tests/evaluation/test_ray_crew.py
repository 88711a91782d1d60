"""Who of a pool's workers stays, comes and leaves; the actors are made up."""

from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from ztp_search.evaluation import ray_crew
from ztp_search.evaluation.ray_crew import MAX_FAILED_STARTS, Crew


class Actor:
    """An actor that says on which node it is once it has `come`."""

    def __init__(self) -> None:
        self.come: str | Exception | None = None
        self.ended = False
        self.node = SimpleNamespace(remote=lambda: self)


class Ray:
    """Actors that have been made, and what is asked of Ray."""

    def __init__(self) -> None:
        self.made: list[Actor] = []

    def remote(self) -> Actor:
        self.made.append(Actor())
        return self.made[-1]

    def wait(self, answers: list[Actor], timeout: float) -> tuple[list[Actor], list[Actor]]:
        assert timeout == 0
        return [each for each in answers if each.come is not None], []

    def get(self, answer: Actor) -> str:
        assert answer.come is not None
        if isinstance(answer.come, Exception):
            raise answer.come
        return answer.come

    def kill(self, actor: Actor) -> None:
        actor.ended = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Ray:
    ray = Ray()
    monkeypatch.setattr(ray_crew, "ray", ray)
    monkeypatch.setattr(ray_crew, "actor_class", lambda **_: ray)
    monkeypatch.setattr(ray_crew, "end_workers", lambda actors: [ray.kill(each) for each in actors])
    return ray


def crew_of(made: Ray, *nodes: str | None) -> Crew:
    """A crew of workers on these nodes; None: one that has not come."""
    crew = Crew({"num_cpus": 1}, lambda _: None)
    crew.begin([made.remote() for _ in nodes], placed=False)
    for actor, node in zip(crew.actors, nodes, strict=True):
        actor.come = node
    assert list(crew.welcome()) == [at for at, node in enumerate(nodes) if node]
    return crew


def there(crew: Crew) -> list[int]:
    """Numbers of those that have not ended."""
    return [at for at, actor in enumerate(crew.actors) if actor is not None]


def test_tasks_are_for_those_that_have_come(made: Ray) -> None:
    crew = crew_of(made, None, "n", None, "n")
    assert (crew.size, crew.present, crew.room, crew.free) == (4, 2, 4, 1)
    crew.load[1] = 2
    assert (crew.room, crew.free) == (2, 3)
    crew.actors[0].come = "n"
    assert [(at, crew.present) for at in crew.welcome()] == [(0, 3)]
    assert (crew.room, crew.free) == (4, 0)


def test_where_nobody_has_come_one_task_is_taken(made: Ray) -> None:
    crew = crew_of(made, None, None)
    assert (crew.room, crew.free) == (1, 0)
    crew.load[0] = 1
    assert crew.room == 0


def test_placed_workers_are_there_at_once(made: Ray) -> None:
    crew = Crew({"num_cpus": 1}, lambda _: None)
    crew.begin([made.remote(), made.remote()], placed=True)
    assert (crew.present, crew.room) == (2, 4)


def test_who_leaves_ends_what_it_has_in_hand_and_gets_no_more(made: Ray) -> None:
    crew = crew_of(made, "n", "n", "n")
    crew.load[:] = [0, 1, 2]
    assert crew.resize(1) == []
    crew.dismiss(busy={1, 2})
    assert there(crew) == [0, 1, 2] and (crew.size, crew.room, crew.free) == (1, 2, 0)
    assert [crew.takes(worker) for worker in range(3)] == [True, False, False]
    crew.dismiss(busy={0, 2})
    assert there(crew) == [0, 2] and made.made[1].ended
    crew.dismiss(busy=())
    assert there(crew) == [0]


def test_who_is_leaving_stays_when_there_is_room_again_and_numbers_are_given_again(
    made: Ray,
) -> None:
    crew = crew_of(made, "n", "n", "n")
    crew.resize(1)
    crew.dismiss(busy={0, 2})
    assert there(crew) == [0, 2]
    crew.resize(4)
    assert there(crew) == [0, 1, 2, 3] and (crew.size, crew.present) == (4, 2)
    assert crew.actors[2] is made.made[2] and len(crew.load) == 4
    crew.dismiss(busy=())
    assert there(crew) == [0, 1, 2, 3] and not made.made[2].ended


def test_who_has_not_come_goes_first_and_tells_of_its_tasks(made: Ray) -> None:
    crew = crew_of(made, None, "n", None, "n")
    crew.load[:] = [1, 1, 0, 1]
    assert crew.resize(2) == [0]
    assert there(crew) == [1, 3] and crew.present == 2


def test_a_node_is_left_whole(made: Ray) -> None:
    crew = crew_of(made, "a", "b", "a", "b", "c", "a")
    for size, left in [(5, "ababa"), (3, "aaa"), (2, "aa")]:
        assert crew.resize(size) == []
        crew.dismiss(busy=())
        assert "".join(actor.come for actor in crew.living) == left


def test_a_dead_worker_is_replaced_unless_it_was_leaving(made: Ray) -> None:
    crew = crew_of(made, "n", "n")
    crew.load[:] = [1, 1]
    crew.resize(1)
    crew.replace(1)
    crew.replace(1)  # again
    assert there(crew) == [0] and made.made[1].ended
    crew.replace(0)
    assert there(crew) == [0] and crew.actors[0] is made.made[2] and crew.present == 0


def test_a_worker_that_fails_to_start_is_tried_again_some_times(made: Ray) -> None:
    crew = crew_of(made, "n", None)
    for _ in range(MAX_FAILED_STARTS + 2):
        crew.actors[1].come = RayActorError()
        assert list(crew.welcome()) == []
    assert len(made.made) == 2 + MAX_FAILED_STARTS and crew.present == 1
    crew = crew_of(made, None)
    crew.load[0] = 1
    crew.actors[0].come = RayActorError()
    assert list(crew.welcome()) == [] and crew.present == 1  # its task says what is wrong


def test_all_end_together(made: Ray) -> None:
    crew = crew_of(made, "n", None, "n")
    crew.resize(2)
    crew.end()
    assert all(actor.ended for actor in made.made)
