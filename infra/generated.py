"""Every generated file, and every page with a generated part: `make generated` writes them, a test compares them."""

from __future__ import annotations

from pathlib import Path

from infra import chart
from infra.docs import configuration, guard_nano, metrics, nano_stream, privacy
from infra.observability import alerts, dashboard
from schemas import generate as schemas
from workers.gateway import openapi as gateway_openapi
from workers.review import openapi as review_openapi

ROOT = Path(__file__).parents[1]


def texts() -> dict[str, str]:
    """Return the text of each file by its path. Of a page, only the generated parts differ from what is there now."""
    return {
        **{f"schemas/json/{name}": text for name, text in schemas.rendered().items()},
        "schemas/asyncapi.yaml": schemas.rendered_asyncapi(),
        "schemas/gateway-openapi.yaml": gateway_openapi.rendered(),
        "schemas/review-openapi.yaml": review_openapi.rendered(),
        "README.md": nano_stream.readme(guard_nano.readme(_present("README.md"))),
        "infra/nano/CARD.md": guard_nano.unseen(guard_nano.card(_present("infra/nano/CARD.md"))),
        "infra/nano_stream/CARD.md": nano_stream.card(_present("infra/nano_stream/CARD.md")),
        "docs/actions.md": configuration.rendered_actions(_present("docs/actions.md")),
        "docs/configuration.md": configuration.rendered(_present("docs/configuration.md")),
        "helm/guardline/files/settings.json": chart.settings(),
        "infra/observability/alerts.yaml": alerts.rules(),
        "infra/observability/dashboard.json": dashboard.rendered(),
        # Helm reads no file outside the chart. The chart has rules only for workers that it deploys.
        "helm/guardline/files/alerts.yaml": alerts.rules(is_every_kind_expected=True),
        "helm/guardline/files/dashboard.json": dashboard.rendered(),
        "docs/privacy.md": privacy.rendered(_present("docs/privacy.md")),
        "docs/metrics.md": metrics.rendered(_present("docs/metrics.md")),
    }


def _present(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def main() -> None:
    """Write them."""
    for path, text in texts().items():
        file = ROOT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
