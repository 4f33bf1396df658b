import pytest
from matplotlib.text import Text


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """The texts that are drawn, in order."""
    texts, draw = [], Text.draw

    def record(text, renderer):
        if text.get_text() and text.get_visible():
            texts.append(text.get_text())
        return draw(text, renderer)

    monkeypatch.setattr(Text, "draw", record)
    return texts
