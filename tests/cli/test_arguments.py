"""Values of arguments: what each form means, before anything else is looked at."""

from pathlib import Path

import pytest

from ztp_search.cli.main import parse
from ztp_search.errors import ZtpError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("512MB", 512_000_000),
        ("512mb", 512_000_000),
        ("2G", 2_000_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("4KiB", 4096),
        ("1TB", 10**12),
    ],
)
def test_memory_is_a_size_in_decimal_or_binary_units(text: str, size: int) -> None:
    assert parse(["--budget", "3", "--cache-memory", text]).cache_memory == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1d", 86400), ("0", 0)],
)
def test_time_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert parse(["--budget", "3", "--timeout", text]).timeout == seconds


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--cache-memory", "much"),
        ("--cache-memory", "-1"),
        ("--cache-memory", "2XB"),
        ("--timeout", "5x"),
        ("--timeout", "-5"),
        ("--timeout", "2h30m"),
        ("--racing", "some"),
        ("--sampler", "grid"),
        ("--method", "tome"),
        ("--method", "drop"),
        ("--refine", "-1"),
        ("--refine", "half"),
        ("--trials", "0"),
        ("--tolerance", "0"),
        ("--gpus-per-worker", "nan"),
    ],
)
def test_a_value_that_is_none_is_refused_in_one_line_that_names_both(
    option: str, value: str
) -> None:
    with pytest.raises(ZtpError) as error:
        parse(["--budget", "3", f"{option}={value}"])
    assert option in str(error.value) and value in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_method_is_a_part_of_the_space_and_none_is_stated_by_default() -> None:
    assert "method" not in vars(parse(["--budget", "3"]))  # the settings', which is "any"
    for method in ("any", "zero-tprune", "merge"):
        assert parse(["--budget", "3", "--method", method]).method == method


COMMANDS_WITH_STORAGE = ("search --budget 3", "best", "export", "dashboard", "report -o r.html")


@pytest.mark.parametrize("command", COMMANDS_WITH_STORAGE)
def test_the_database_may_be_named_in_the_environment_or_in_a_file(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    secret = tmp_path / "storage"
    secret.write_text("postgresql://u:word@host/db\n# of the team\n")
    monkeypatch.setenv("ZTP_STORAGE", "postgresql://u:secret@host/db")
    argv = command.split()
    assert parse(argv).storage == "postgresql://u:secret@host/db"
    assert parse([*argv, "--storage", "sqlite:///a.db"]).storage == "sqlite:///a.db"
    assert parse([*argv, "--storage", f"@{secret}"]).storage == "postgresql://u:word@host/db"
    with pytest.raises(SystemExit):
        parse([argv[0], "--help"])
    assert "secret" not in capsys.readouterr().out
    monkeypatch.setenv("ZTP_STORAGE", f"@{secret}")
    assert parse(argv).storage == "postgresql://u:word@host/db"
    monkeypatch.delenv("ZTP_STORAGE")
    assert "storage" not in vars(parse(argv))


@pytest.mark.parametrize("text", ["", "\n", " \nsqlite:///a.db"])
def test_a_storage_file_without_a_url_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "storage").write_text(text)
    for path in (tmp_path / "storage", tmp_path / "none"):
        with pytest.raises(ZtpError, match="storage file"):
            parse(["best", "--storage", f"@{path}"])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--budgt", "50%"], "unrecognized arguments: --budgt (is it --budget?)"),
        (["--budgt=50%"], "unrecognized arguments: --budgt (is it --budget?)"),
        (["--budget", "3", "--trails", "5"], "unrecognized arguments: --trails (is it --trials?)"),
        (["export", "--fromat", "json"], "unrecognized arguments: --fromat (is it --format?)"),
        (["evaluate", "--frobnicate"], "unrecognized arguments: --frobnicate; see"),
    ],
)
def test_a_misspelt_option_is_told_before_missing_ones(argv: list[str], says: str) -> None:
    with pytest.raises(ZtpError) as caught:
        parse(argv)
    assert str(caught.value).startswith(says)


def test_what_stands_behind_two_dashes_is_no_option() -> None:
    assert str(parse(["cost", "--", "--frobnicate"]).config) == "--frobnicate"
