import pytest
from matplotlib.axes import Axes


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """The texts that are drawn, in order."""
    texts, draw = [], Axes.text

    def record(axes, x, y, text, **style):
        texts.append(text)
        return draw(axes, x, y, text, **style)

    monkeypatch.setattr(Axes, "text", record)
    return texts
