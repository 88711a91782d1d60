"""The notebooks run as they stand, in an empty folder, and are stored without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


class Client(NotebookClient):
    """Counts how often what is shown is replaced: progress, and nothing else."""

    updates = 0

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        self.updates += msg["msg_type"] == "update_display_data"
        return super().process_message(msg, cell, cell_index)


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"digits", "your_model"}


@every_notebook
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@every_notebook
def test_a_notebook_runs_in_an_empty_folder(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, 4)
    where = {"metadata": {"path": str(tmp_path)}}
    client = Client(notebook, kernel_name="python3", timeout=280, resources=where)
    client.execute()  # an error of a cell is one here
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", [])]
    pages = [each["data"].get("text/html", "") for each in outputs if "data" in each]
    assert any("Best configuration (trial " in page for page in pages)
    assert any('<img src="data:image/png;base64,' in page for page in pages)
    assert client.updates > 3  # stages, images and trials were shown
    assert not any("<progress" in page for page in pages)  # and are gone
    assert [each.name for each in tmp_path.iterdir()] == ["ztp-runs"]
