"""The site's hooks: where a file of the repository lies on the site, and where its links lead."""

import base64

import pytest

from scripts.mkdocs_hooks import notebook_page, on_page_content, place, with_links

SHOWN = {
    path: place(path)
    for path in (
        "README.md",
        "docs/README.md",
        "docs/quirks.md",
        "docs/optimizers/emosens.md",
        "docs/figures/report.png",
        "recipes/README.md",
        "recipes/lora/README.md",
    )
}


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("README.md", "index.md"),
        ("docs/README.md", "contents.md"),
        ("docs/optimizers/emosens.md", "optimizers/emosens.md"),
        ("recipes/lora/README.md", "recipes/lora/README.md"),
        ("notebooks/quickstart.ipynb", "quickstart-in-jupyter.md"),
    ],
)
def test_place(path, uri):
    assert place(path) == uri


@pytest.mark.parametrize(
    ("page", "text", "on_the_site"),
    [
        ("docs/quirks.md", "[a](README.md)", "[a](contents.md)"),
        ("docs/quirks.md", "[a](../README.md#try-it)", "[a](index.md#try-it)"),
        ("docs/quirks.md", "[two\nlines](../recipes/lora/README.md)", "[two\nlines](recipes/lora/README.md)"),
        ("docs/optimizers/emosens.md", "[a](../quirks.md#1-b)", "[a](../quirks.md#1-b)"),
        (
            "recipes/lora/README.md",
            "[a](../../docs/quirks.md), [b](../README.md)",
            "[a](../../quirks.md), [b](../README.md)",
        ),
        ("recipes/lora/README.md", "[a](../README.md), [b](README.md)", "[a](../README.md), [b](README.md)"),
        ("README.md", "![picture](docs/figures/report.png)", "![picture](figures/report.png)"),
        ("README.md", "[![p](docs/figures/report.png)](docs/quirks.md)", "[![p](figures/report.png)](quirks.md)"),
        ("docs/quirks.md", "[`updates.py`](../emo_hf/updates.py)", "`emo_hf/updates.py`"),
        ("docs/quirks.md", "[cards](../model_cards/)", "cards (`model_cards`)"),
        ("docs/quirks.md", "[`EmoPulse`](../emo_hf/scheduler.py)", "`EmoPulse` (`emo_hf/scheduler.py`)"),
    ],
)
def test_links(page, text, on_the_site):
    assert with_links(text, page, SHOWN) == on_the_site


@pytest.mark.parametrize(
    "text",
    [
        "[a](https://example.org/x.md)",
        "[a](#part)",
        "`[a](README.md)`",
        "```\n[a](../README.md)\n```",
        "a[0] (b)",
        "[a](gone.md)",
    ],
)
def test_what_is_no_link_to_a_file_that_exists_stays(text):
    assert with_links(text, "docs/quirks.md", SHOWN) == text


def test_links_to_other_files_lead_to_the_repository_if_it_has_an_address():
    text = with_links("[u](../emo_hf/updates.py#L3)", "docs/quirks.md", SHOWN, "https://example.org/emo_hf/")
    assert text == "[u](https://example.org/emo_hf/blob/main/emo_hf/updates.py#L3)"


def test_a_notebook_as_a_page():
    png = base64.b64encode(b"picture").decode()
    outputs = [
        {"output_type": "stream", "text": ["one\n", "two\n"]},
        {"output_type": "execute_result", "data": {"text/html": ["<b>"], "text/plain": ["3"]}},
        {"output_type": "display_data", "data": {"image/png": png, "text/plain": ["<Figure>"]}},
    ]
    cells = [
        {"cell_type": "markdown", "id": "a", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "id": "b", "source": ["1 + 2"], "outputs": outputs},
    ]
    text, pictures = notebook_page({"cells": cells}, "folder")
    assert text.split("\n\n") == [
        "# Title\nwords",
        "```python\n1 + 2\n```",
        "``` { .text .output }\none\ntwo\n3\n```",
        "![Output of the code above](folder/b.png)",
        "",
    ]
    assert pictures == {"folder/b.png": b"picture"}


def test_bars_in_code():
    html = "<td><code>1 - \\|scalar\\|</code> \\|</td>"
    assert on_page_content(html, None, None, None) == "<td><code>1 - |scalar|</code> \\|</td>"
