"""The notebooks under examples/ run in a real kernel on the embedded model, and their outputs look right."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))
INSTALL = re.compile(r'find_spec\("headrace"\) is None:\n    %pip install --quiet headrace$')
DEADLINE = 240


def names(path: Path) -> str:
    return path.stem


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(notebook: NotebookNode, folder: Path) -> list[NotebookNode]:
    """The outputs of all cells, in a kernel whose folder is `folder`."""
    client = NotebookClient(notebook, timeout=DEADLINE, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute()
    return [output for cell in code_cells(notebook) for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_it_is_kept_without_outputs_and_begins_with_an_installation_that_does_no_harm(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert all(cell.execution_count is None and not cell.outputs for cell in cells)
    assert INSTALL.search(cells[0].source), "only where it is missing: Colab's own torch stays, and so does ours here"
    assert not any("!pip" in cell.source or "%pip" in cell.source for cell in cells[1:])


@pytest.mark.usefixtures("smollm2_gguf")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    outputs = run(nbformat.read(path, as_version=4), tmp_path)
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert said == "", "no warning, no bar that was written over itself"


@pytest.mark.usefixtures("smollm2_gguf")
def test_a_bar_is_one_output_that_ends_full(tmp_path: Path) -> None:
    """In the saved notebook too, without widgets; and an error of `generate` is one a person can read."""
    lines = [
        "from headrace import LLM, SamplingParams",
        "with LLM(preset='notebook') as llm:",
        "    llm.generate(['One', 'Two', 'Three'], SamplingParams(max_tokens=3, ignore_eos=True))",
        "    llm.generate('Four', SamplingParams(max_tokens=3), use_tqdm=False)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])
    [bar] = run(notebook, tmp_path)
    assert bar.output_type == "display_data"
    assert re.fullmatch(r"Processed prompts: 3/3, in [\d,]+ tok/s, out [\d,]+ tok/s", bar.data["text/plain"])
    assert '<progress value="3" max="3"' in bar.data["text/html"]
