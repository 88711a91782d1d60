"""The database under a study: URLs that name none, and what is printed of them."""

import traceback
from pathlib import Path

import pytest
from helpers.studies import open_study

from ztp_search.errors import StudyError
from ztp_search.study import redact

SECRET = "s3cret"
BAD_URLS = {
    "runs/study.db": "must be a database URL",
    "sqlite://study.db": "must name a file that stays",
    "sqlite://": "must name a file that stays",
    "sqlite:///:memory:": "must name a file that stays",
    f"postgres://u:{SECRET}@h/d": "must be sqlite, postgresql or mysql, but got 'postgres'",
    f"postgresql://u:{SECRET}@h:port/d": "must be a database URL",
    f"postgresql://u:{SECRET}": "must be a database URL",
    f"u:{SECRET}@h/d": "must be a database URL",
    f"postgresql+absent://u:{SECRET}@h/d": "sqlalchemy.dialects:postgresql.absent",
    f"mysql+absent://h/d?user=u&password={SECRET}": "sqlalchemy.dialects:mysql.absent",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(StudyError, match=BAD_URLS[url]) as refused:
        open_study(url)
    assert "\n" not in str(refused.value)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("scheme", "module"),
    [("postgresql+pg8000", "pg8000"), ("postgresql+psycopg2", "psycopg2"),
     ("mysql", "MySQLdb")],
)  # fmt: skip
def test_a_missing_driver_is_named(scheme: str, module: str) -> None:
    try:
        __import__(module)
    except ImportError:
        with pytest.raises(StudyError, match=f"needs the Python module {module}") as refused:
            open_study(f"{scheme}://u:{SECRET}@127.0.0.1:1/d")
        assert SECRET not in str(refused.value)
    else:
        pytest.skip(f"{module} is installed")


def test_a_path_that_cannot_be_a_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is not a database " * 100)
    for path in ("text", "text/study.db", "."):
        with pytest.raises(StudyError, match="the study database sqlite:.* cannot be used: ") as no:
            open_study(f"sqlite:///{tmp_path}/{path}")
        assert "\n" not in str(no.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:s3cret@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:s3:cr/e?t@x@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?user=u&password=s3cret", "postgresql://h/d?user=***&password=***"),
        ("postgresql://h/d?password=s3@cret", "postgresql://h:***@cret"),
        ("mysql+pymysql://:s3cret@[::1]:3306/d", "mysql+pymysql://:***@[::1]:3306/d"),
        ("postgresql://u:s3cret", "postgresql://u:***"),
        ("u:s3cret@h/d", "u:***@h/d"),
        ("sqlite:////data/a@b:c?d.db", "sqlite:////data/a@b:c?d.db"),
        ("runs/study.db", "runs/study.db"),
    ],
)
def test_redact_shows_no_password(url: str, shown: str) -> None:
    assert redact(url) == shown
