import pytest
from matplotlib.backends.backend_agg import RendererAgg


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """The texts that are drawn, in order."""
    texts, draw = [], RendererAgg.draw_text

    def record(renderer, gc, x, y, words, *arguments, **options):
        texts.append(words)
        return draw(renderer, gc, x, y, words, *arguments, **options)

    monkeypatch.setattr(RendererAgg, "draw_text", record)
    return texts
