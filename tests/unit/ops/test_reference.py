"""The pages that are made from the code are the ones that lie in docs/."""

import pytest

from ops.reference.pages import FOLDER, pages


@pytest.mark.parametrize("name", list(pages()))
def test_a_page_is_the_one_that_the_code_makes(name):
    assert (FOLDER / name).read_text("utf-8") == pages()[name], "run `make docs`"
